package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

var (
	oneSeed   = flag.Uint64("sim.seed", 0, "play the history of this seed")
	tries     = flag.Int("sim.tries", 10, "with -sim.seed: how often, until it fails")
	shrinking = flag.Bool("sim.shrink", false, "leave out faults of a history that has failed, as long as it fails")
	histories = flag.Int("sim.histories", 0, "how many histories; 0: as many as fit -sim.time")
	budget    = flag.Duration("sim.time", 30*time.Second, "how long histories are played")
	firstSeed = flag.Uint64("sim.first", 1, "the first seed")
)

const (
	// undecided is how long porcupine may take for a history.
	undecided = 20 * time.Second
	// hanging is for how long the clock of a bubble may stand still: something waits in it
	// for what cannot come. Most histories take a tenth of a second.
	hanging = 90 * time.Second
)

// pulse shows that the clock of a bubble goes on.
type pulse struct {
	beats atomic.Uint64
	stop  chan struct{}
	over  sync.WaitGroup
}

// beat is run in the bubble.
func (p *pulse) beat(quit context.Context) {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.beats.Add(1)
		case <-quit.Done():
			return
		}
	}
}

// feel calls stands when the clock has stood still for too long. It is run outside of the
// bubble.
func (p *pulse) feel(stands func()) {
	t := time.NewTicker(hanging)
	defer t.Stop()
	for last := uint64(0); ; {
		select {
		case <-t.C:
		case <-p.stop:
			return
		}
		now := p.beats.Load()
		if now == last {
			stands()
		}
		last = now
	}
}

// playAndJudge plays a plan. decided is false if nobody could judge the history in time.
func playAndJudge(t *testing.T, p plan) (g *group, decided bool, err error) {
	heart := &pulse{stop: make(chan struct{})}
	heart.over.Go(func() {
		heart.feel(func() {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			panic(fmt.Sprintf("a history hangs; go test ./arakoon/sim -run TestHistories -sim.seed %d\n%v\n%s", p.seed, p, stacks))
		})
	})
	synctest.Test(t, func(*testing.T) {
		quit, cancel := context.WithCancel(context.Background())
		defer cancel()
		go heart.beat(quit)
		g = play(p)
	})
	close(heart.stop)
	heart.over.Wait()
	if err := g.watch.err(); err != nil {
		return g, true, err
	}
	decided, err = g.record.judge(undecided)
	return g, decided, err
}

// TestHistories plays histories, and fails with the seed of one that must not be.
func TestHistories(t *testing.T) {
	if *oneSeed > 0 {
		for range *tries {
			if g, _, err := playAndJudge(t, newPlan(*oneSeed)); err != nil {
				report(t, g, err)
				return
			}
		}
		return
	}
	end := time.Now().Add(*budget)
	var total struct{ upgrades, histories, undecided, operations, unsure, messages, grants, fenced, jumps, fetched, aged int }
	began := time.Now()
	for seed := *firstSeed; ; seed++ {
		if *histories > 0 && total.histories >= *histories || *histories == 0 && time.Now().After(end) {
			break
		}
		g, decided, err := playAndJudge(t, newPlan(seed))
		if err != nil {
			report(t, g, err)
			return
		}
		if testing.Verbose() && *histories == 1 {
			t.Logf("%v\n%s", g.plan, g.watch.story())
		}
		total.histories++
		if g.raised.Load() {
			total.upgrades++
		}
		total.operations += len(g.record.list)
		total.unsure += g.record.unsure
		total.aged += g.record.aged
		total.messages += g.net.sent
		total.grants += len(g.leases.held)
		total.fenced += len(g.leases.under)
		total.fetched += int(g.fetched.Load())
		for _, w := range g.told {
			total.jumps += w.jumps
		}
		if !decided {
			total.undecided++
			t.Logf("seed %d: porcupine has not decided within %v", seed, undecided)
		}
	}
	t.Logf("%d histories in %v: %d operations, %d of unknown outcome, %d messages, %d undecided; %d leases granted, %d writes under them; %d times a watcher read all; %d snapshots fetched; %d reads told their age; %d groups upgraded to a newer release",
		total.histories, time.Since(began).Round(time.Millisecond), total.operations, total.unsure, total.messages, total.undecided, total.grants, total.fenced, total.jumps, total.fetched, total.aged, total.upgrades)
}

func report(t *testing.T, g *group, err error) {
	t.Helper()
	p := g.plan
	if *shrinking {
		p = shrink(t, p)
	}
	t.Errorf("%v\n%v\nwhat happened:\n%s\n\nagain: go test ./arakoon/sim -run TestHistories -sim.seed %d", err, p, g.watch.story(), g.plan.seed)
}

// shrink leaves out faults of a plan as long as it fails still.
func shrink(t *testing.T, p plan) plan {
	fails := func(p plan) bool {
		for range *tries {
			if _, _, err := playAndJudge(t, p); err != nil {
				return true
			}
		}
		return false
	}
	return smallest(p, fails)
}

// smallest is the plan without those faults that it fails without: first halves are left
// out, then ever smaller parts.
func smallest(p plan, fails func(plan) bool) plan {
	for part := (len(p.faults) + 1) / 2; part > 0; {
		smaller := false
		for from := 0; from < len(p.faults); from += part {
			q := p
			q.faults = append(append([]fault{}, p.faults[:from]...), p.faults[min(from+part, len(p.faults)):]...)
			if fails(q) {
				p, smaller = q, true
				break
			}
		}
		if !smaller {
			part /= 2
		}
		part = min(part, len(p.faults))
	}
	return p
}

// A member whose directory is empty, and that was made before, is refused: it must not
// begin anew (rule P8), and no vote of it may count. So is the disk of another member.
func TestEmptyDirectoryIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(plan{seed: 1, members: 1, compact: 1 << 20, weather: fair})
		m := g.add(false)
		m.start()
		if newClient(g, 0).write(input{kind: set, wanted: some("x")}) == 0 {
			t.Error("a write was not done")
		}
		m.closes(m.current())
		for name, spoil := range map[string]func(l *life, o *arakoon.Options){
			"the directory is gone": func(l *life, _ *arakoon.Options) { _ = l.fault.RemoveAll(memberDir) },
			"all is gone": func(l *life, _ *arakoon.Options) {
				if err := errors.Join(l.fault.RemoveAll(memberDir), l.fault.Remove(memberDir+".marks")); err != nil {
					t.Error(err)
				}
			},
			"its log is gone":          func(l *life, _ *arakoon.Options) { _ = l.fault.RemoveAll(memberDir + "/log") },
			"its log is empty":         func(l *life, _ *arakoon.Options) { emptyDir(t, l.fault, memberDir+"/log") },
			"its state is gone":        func(l *life, _ *arakoon.Options) { _ = l.fault.RemoveAll(memberDir + "/state") },
			"it is another member's":   func(_ *life, o *arakoon.Options) { o.Member = 2 },
			"it is of another cluster": func(_ *life, o *arakoon.Options) { o.Cluster[0]++ },
		} {
			was := m.disk.Kill()
			l := m.begin()
			o := m.options(l)
			spoil(l, &o)
			n, err := arakoon.Open(o)
			if err == nil {
				t.Errorf("%s: it is opened", name)
				_ = n.Close()
			}
			m.end(l, func(*crashdisk.FS) *crashdisk.FS { return was })
		}
		g.stop()
		if err := g.watch.err(); err != nil {
			t.Error(err)
		}
	})
}

func emptyDir(t *testing.T, d disk.FS, dir string) {
	names, err := d.ReadDir(dir)
	for _, name := range names {
		err = errors.Join(err, d.Remove(dir+"/"+name))
	}
	if err != nil {
		t.Error(err)
	}
}

// A leader that was stopped, and knows nothing of the one after it, answers no consistent
// read when it goes on.
func TestOldLeaderAnswersNoReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(plan{seed: 1, members: 3, compact: 1 << 40, weather: fair})
		g.add(false).start()
		g.grow(2)
		old := g.leader()
		n, l := old.node()
		l.gate.close()
		mend := g.net.sever([]direction{{1, old.id}, {2, old.id}, {3, old.id}})
		c := newClient(g, 0)
		for in := c.some(set); ; time.Sleep(thinking) {
			for _, m := range g.all() {
				if c.at = m; m != old && c.write(in) > 0 {
					c.at = nil
					break
				}
			}
			if g.watch.newestAnswered() > 0 {
				break
			}
		}
		time.AfterFunc(thinking, l.gate.open)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := n.MultiGet(ctx, arakoon.Consistent, key(0, 0)); err == nil {
			t.Error("it has answered a read behind a write of its successor")
		}
		mend()
		g.stop()
	})
}
