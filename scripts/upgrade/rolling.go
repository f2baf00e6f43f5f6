package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"openvstorage/internal/control"
)

// run takes the way that the older release allows.
func (u *upgrade) run() (err error) {
	defer func() { err = errors.Join(err, u.close()) }()
	if u.older.hosts() {
		return u.rolling()
	}
	return u.machine()
}

// machine makes the first host of a cluster of the data directory that a release of one machine
// leaves. That release refuses it then.
func (u *upgrade) machine() error {
	u.say("%v makes a data directory of one machine", u.older)
	if err := u.up(1, u.older, false); err != nil {
		return err
	}
	old, err := u.write(1, "before")
	if err != nil {
		return err
	}
	if err := u.stop(1); err != nil {
		return err
	}
	u.say("%v opens it with --listen, and two hosts join", u.newer)
	if err := u.up(1, u.newer, true); err != nil {
		return err
	}
	for n := 2; n <= 3; n++ {
		if err := u.join(n, u.newer); err != nil {
			return err
		}
	}
	if err := u.three(); err != nil {
		return err
	}
	young, err := u.write(1, "after")
	if err == nil {
		err = errors.Join(u.holds(1, "before", old), u.holds(1, "after", young))
	}
	if err == nil {
		err = errors.Join(u.learn(&u.newer), u.raised())
	}
	if err = errors.Join(err, u.stop(1)); err != nil {
		return err
	}
	_, c := u.command(1, u.older, false)
	line, err := u.refuses(c, "newer")
	u.say("%v refuses it then: %s", u.older, line)
	return err
}

// rolling goes from one release to the other with three hosts, one after the other.
func (u *upgrade) rolling() error {
	u.say("%v runs on three hosts", u.older)
	if err := u.up(1, u.older, true); err != nil {
		return err
	}
	for n := 2; n <= 3; n++ {
		if err := u.join(n, u.older); err != nil {
			return err
		}
	}
	if err := u.three(); err != nil {
		return err
	}
	if err := u.learn(&u.older); err != nil {
		return err
	}
	data, err := u.write(1, "data")
	if err != nil {
		return err
	}
	l := u.load()
	if err = l.more(u); err == nil {
		err = u.rollAll(l)
	}
	did, failed := l.end()
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	u.say("%d vDisks were made and removed meanwhile, and no request failed", did)
	if err := u.holds(1, "data", data); err != nil {
		return err
	}
	if err := u.raise(); err != nil {
		return err
	}
	return u.back(data)
}

// rollAll restarts one host after the other with the newer release. The first host is the second
// one: whatever its release is, others have both.
func (u *upgrade) rollAll(l *load) error {
	for _, n := range []int{3, 1, 2} {
		if err := u.roll(l, n); err != nil {
			return fmt.Errorf("host %d is restarted with %v: %w", n, u.newer, err)
		}
		if err := l.more(u); err != nil {
			return err
		}
	}
	return nil
}

// roll restarts a host. Requests go to host 1: while that one is down, nobody makes any.
func (u *upgrade) roll(l *load, n int) error {
	if n == 1 {
		l.pause.Lock()
		defer l.pause.Unlock()
	}
	u.say("host %d is restarted with %v", n, u.newer)
	if err := u.stop(n); err != nil {
		return err
	}
	if err := u.up(n, u.newer, true); err != nil {
		return err
	}
	if err := u.settled(); err != nil {
		return err
	}
	if n == 1 {
		if err := u.learn(&u.newer); err != nil {
			return err
		}
		return u.early()
	}
	return nil
}

// learn finds out which level a release knows that host 1 runs.
func (u *upgrade) learn(r *release) error {
	if !r.levels() {
		r.level = firstLevel
		return nil
	}
	l, err := u.levels()
	if err == nil {
		r.level = l.Groups[0].Members[0].Knows // of member 1, on host 1
	}
	return err
}

// firstLevel is what the first release knows that made clusters, and does not say.
const firstLevel = 2

// differ reports whether the newer release knows a level that the older does not.
func (u *upgrade) differ() bool { return u.older.level < u.newer.level }

// settled waits until all hosts are connected, and all members that are asked answer.
func (u *upgrade) settled() error {
	return u.await("all hosts are there", func() (bool, error) {
		out, err := u.ovs(1, "host", "list", "--json")
		var list []control.ClusterHost
		if err == nil {
			err = json.Unmarshal([]byte(out), &list)
		}
		for _, h := range list {
			if h.Connected == nil || !*h.Connected {
				return false, err
			}
		}
		if err != nil || !u.hosts[1].release.levels() {
			return err == nil, err
		}
		l, err := u.levels()
		return err == nil && l.Raise > 0, err
	})
}

// early tries to raise the groups while a host runs the older release: that one is named.
func (u *upgrade) early() error {
	if !u.differ() {
		return nil
	}
	_, err := u.ovs(1, "arakoon", "level", "--all", fmt.Sprint(u.newer.level))
	if err == nil || !strings.Contains(err.Error(), "runs an older release") {
		return fmt.Errorf("the groups are raised while a host runs %v: %w", u.older, err)
	}
	u.say("ovs arakoon level --all: %v", err)
	return nil
}

// raise raises the groups, as ovs status says that a person may.
func (u *upgrade) raise() error {
	if u.differ() {
		out, err := u.ovs(1, "status")
		if err != nil || !strings.Contains(out, "ovs arakoon level --all newest") {
			return fmt.Errorf("ovs status does not say that the groups can be raised: %w\n%s", err, out)
		}
	}
	out, err := u.ovs(1, "arakoon", "level", "--all", "newest")
	if err != nil {
		return err
	}
	u.say("ovs arakoon level --all newest\n%s", strings.TrimSpace(out))
	return u.raised()
}

// raised checks that all groups are at the newest level.
func (u *upgrade) raised() error {
	l, err := u.levels()
	for _, g := range l.Groups {
		if g.Level != u.newer.level {
			err = errors.Join(err, fmt.Errorf("group %s is at level %d, and all members know %d", g.Group, g.Level, u.newer.level))
		}
	}
	return err
}

// back tries the older release again, on a host that has members and on one that joins. If it
// knows the level of the groups it may go on.
func (u *upgrade) back(data []byte) error {
	if !u.differ() {
		u.say("%v knows the level of the groups, and could go on", u.older)
		return nil
	}
	if err := u.stop(3); err != nil {
		return err
	}
	if _, err := u.ovs(1, "arakoon", "level", "--all", "newest"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		return fmt.Errorf("a host that is away is not named: %w", err)
	}
	line, err := u.refused(3, u.older, "run a release that knows it")
	if err != nil {
		return err
	}
	u.say("%v on host 3 then: %s", u.older, line)
	token, err := u.ovs(1, "host", "token")
	if err != nil {
		return err
	}
	line, err = u.refused(4, u.older, "upgrade the older host", "--join", strings.TrimSpace(token))
	if err != nil {
		return err
	}
	u.say("%v joins: %s", u.older, line)
	u.hosts[4] = nil
	if err := u.up(3, u.newer, true); err != nil {
		return err
	}
	return errors.Join(u.settled(), u.holds(1, "data", data))
}

// load are requests to host 1, by several at a time.
type load struct {
	pause   sync.RWMutex // held while host 1 is down
	stop    chan struct{}
	workers sync.WaitGroup
	did     atomic.Int64
	failed  atomic.Pointer[error] // the first
}

const (
	loadWorkers = 3
	loadRounds  = 6 // that are done after a restart before the next one
)

// load makes and removes vDisks, which changes all groups.
func (u *upgrade) load() *load {
	l := &load{stop: make(chan struct{})}
	for w := range loadWorkers {
		l.workers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				if err := l.once(u, fmt.Sprintf("load%d-%d", w, i)); err != nil {
					l.failed.CompareAndSwap(nil, &err)
					return
				}
				l.did.Add(1)
			}
		})
	}
	return l
}

func (l *load) once(u *upgrade, name string) error {
	l.pause.RLock()
	defer l.pause.RUnlock()
	if _, err := u.ovs(1, "vdisk", "create", name, "--size", "1MiB"); err != nil {
		return err
	}
	_, err := u.ovs(1, "vdisk", "delete", name)
	return err
}

// more waits until requests were answered that began after now.
func (l *load) more(u *upgrade) error {
	before := l.did.Load()
	return u.await("vDisks are made and removed", func() (bool, error) {
		if err := l.failed.Load(); err != nil {
			return true, nil // end says why
		}
		return l.did.Load() >= before+loadRounds, nil
	})
}

func (l *load) end() (did int64, err error) {
	close(l.stop)
	l.workers.Wait()
	if failed := l.failed.Load(); failed != nil {
		err = *failed
	}
	return l.did.Load(), err
}
