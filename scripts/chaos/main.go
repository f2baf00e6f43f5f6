// Command chaos runs an Arakoon group of real processes on real disks and a real network,
// has clients use it, does harm to it, and judges what the clients were told.
//
//	chaos [-time 30m] [-seed N] [-members 3] [-clients 8] [-dir DIR] [-longest 3s]
//	chaos failover [-kills 30]          how soon a client has its next answer when the leader is killed
//	chaos away [-updates 1000000] [-snapshot-rate N]       how soon a member that was away has caught up, and what it costs the others
//
// Each member has a network namespace and a disk of its own where that can be had (root, ip,
// tc, qemu-storage-daemon, loop devices); otherwise the harm that needs them is left out, and
// it says so. Harm: kill -9 of one, of the leader, of all; pauses; a member that nobody
// reaches, that hears others and is not heard, two that do not hear each other; slow and lossy
// links; disks that hang, are slow or full; the lead given away; rolling restarts; a wiped
// member replaced by a new number. After each the group must be whole again: one leads, and
// all have what it has. At the end the history must be linearizable, watchers must have missed
// nothing that they were told of, the members' hashes must be equal, no log may have taken more
// room than it may, and there must have been no error that is not in the interface. A seed repeats the order of the harm, but not the
// moments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"openvstorage/arakoon/kvclient"
	"openvstorage/scripts/group"
)

type options struct {
	time    time.Duration
	seed    uint64
	members int
	clients int
	dir     string
	longest time.Duration
	say     func(format string, args ...any)
}

type chaos struct {
	options
	ctx     context.Context
	group   *group.Group
	net     *network
	volumes map[uint64]*volume
	rng     *rand.Rand
	r       *recorder
	done    map[string]int // how often each fault was done
	lasting int            // milliseconds of a fault
	disk    bool           // the fault of now is one of a disk
	next    uint64         // number of the next member
	logs    logSpace
	lacks   []string // what this machine has not
}

func main() {
	var o options
	mode := ""
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		mode = os.Args[1]
		os.Args = append(os.Args[:1], os.Args[2:]...)
	}
	flag.DurationVar(&o.time, "time", 30*time.Minute, "of harm")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the order of the harm")
	flag.IntVar(&o.members, "members", 3, "3 or 5")
	flag.IntVar(&o.clients, "clients", 8, "that ask at a time")
	flag.StringVar(&o.dir, "dir", "", "for data; default a new one in the working directory")
	flag.DurationVar(&o.longest, "longest", 3*time.Second, "that a fault lasts")
	kills := flag.Int("kills", 30, "of the leader, for failover")
	snapshots := flag.Int64("snapshot-rate", 0, "bytes a second that are read of snapshots, also beside other work, for away; 0: the defaults")
	updates := flag.Int("updates", 1000000, "of 1 KiB, for away")
	flag.Parse()
	o.say = func(format string, args ...any) {
		fmt.Printf("%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := start(ctx, mode, o, *kills, *updates, *snapshots); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, mode string, o options, kills, updates int, snapshots int64) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp(".", "chaos-data-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		o.dir = dir
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	switch mode {
	case "":
		return harass(ctx, o)
	case "failover":
		return failover(ctx, o, kills)
	case "away":
		return away(ctx, o, updates, snapshots)
	}
	return fmt.Errorf("%q is none of failover and away", mode)
}

// add makes the place of the next member.
func (c *chaos) add(joining bool) (*group.Member, error) {
	id := c.next
	c.next++
	dir := filepath.Join(c.dir, fmt.Sprint(id))
	p := group.Place{ID: id, Dir: filepath.Join(dir, "data")}
	if c.volumes != nil {
		v, err := newVolume(dir)
		if err != nil {
			return nil, fmt.Errorf("the disk of member %d: %w", id, err)
		}
		c.volumes[id], p.Dir = v, v.data()
	}
	var err error
	if c.net != nil {
		if p.Prefix, err = c.net.add(id); err != nil {
			return nil, err
		}
		p.Address = net.JoinHostPort(c.net.address(id), "7000")
	} else if p.Address, err = group.Free(); err != nil {
		return nil, err
	}
	return c.group.Add(p, joining), nil
}

// prepare finds out what this machine can do.
func (c *chaos) prepare() {
	if n, err := newNetwork(); err == nil {
		c.net = n
	} else {
		c.lacks = append(c.lacks, fmt.Sprintf("no networks are cut: %v", err))
	}
	v, err := tryVolume(filepath.Join(c.dir, "try"))
	if err != nil {
		c.lacks = append(c.lacks, fmt.Sprintf("no disks are broken: %v", err))
		return
	}
	v.close()
	c.volumes = map[uint64]*volume{}
}

func tryVolume(dir string) (*volume, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can mount")
	}
	for _, program := range []string{"qemu-storage-daemon", "mkfs.ext4", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, err
		}
	}
	return newVolume(dir)
}

func (c *chaos) close() {
	c.group.Close()
	for _, v := range c.volumes {
		v.close()
	}
	if c.net != nil {
		c.net.close()
	}
}

func (c *chaos) wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// harass is the whole of it. Its error says what was wrong.
func harass(ctx context.Context, o options) error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	program, err := group.Build(ctx, o.dir)
	if err != nil {
		return err
	}
	c := &chaos{
		options: o, ctx: ctx, rng: rand.New(rand.NewPCG(o.seed, 1)), r: newRecorder(), done: map[string]int{}, lasting: int(o.longest / time.Millisecond), next: 1,
		group: group.New(program, o.dir, logArguments()...),
	}
	defer c.close()
	c.prepare()
	o.say("seed %d, %d members, %d clients, %v", o.seed, o.members, o.clients, o.time)
	for _, what := range c.lacks {
		o.say("left out: %s", what)
	}
	for i := range o.members {
		if _, err := c.add(i > 0); err != nil {
			return err
		}
	}
	if err := c.group.Found(ctx); err != nil {
		return err
	}
	wrong, err := c.judged(ctx)
	if err == nil && len(wrong) == 0 {
		return nil
	}
	for _, m := range c.group.Members() {
		o.say("member %d: %s", m.ID, m.Process().Output())
	}
	return errors.Join(err, words(wrong))
}

func words(wrong []string) error {
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%d violations:\n%s", len(wrong), strings.Join(wrong, "\n"))
}

// judged does the harm while clients work.
func (c *chaos) judged(ctx context.Context) (wrong []string, err error) {
	harm, stop := context.WithTimeout(ctx, c.time)
	defer stop()
	work, end := context.WithCancel(ctx)
	defer end()
	var open []*kvclient.Client
	var all sync.WaitGroup
	failed := make(chan error, 1)
	all.Go(func() {
		failed <- clients(work, c.clients, c.seed, c.r, func() (*kvclient.Client, error) {
			one, err := c.group.Client(kvclient.Options{})
			if err == nil {
				open = append(open, one)
			}
			return one, err
		})
	})
	all.Go(func() { c.logs.look(work, c.logDirs) })
	err = c.harm(harm, rand.New(rand.NewPCG(c.seed, 2)))
	end()
	all.Wait()
	for _, one := range open {
		one.Close()
	}
	err = errors.Join(err, <-failed)
	if err == nil {
		err = c.hashes(ctx)
	}
	c.judgeLogs()
	wrong = c.r.judge(5 * time.Minute)
	c.report()
	return wrong, err
}

// hashes compares the states of all members.
func (c *chaos) hashes(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	l, err := c.group.Leader(ctx)
	if err != nil {
		return err
	}
	var want group.Hash
	if err := l.Call(ctx, "/hash", nil, &want); err != nil {
		return err
	}
	for _, m := range c.group.Members() {
		var got group.Hash
		if err := m.Call(ctx, "/hash", url.Values{"index": {fmt.Sprint(want.Index)}}, &got); err != nil {
			return err
		}
		if got != want {
			c.r.violation("at index %d member %d has the state %s, and member %d %s", want.Index, l.ID, want.Sum, m.ID, got.Sum)
		}
	}
	c.say("the states of %d members are equal at index %d", len(c.group.Members()), want.Index)
	return nil
}

func (c *chaos) report() {
	for name, n := range c.done {
		c.say("%3d x %s", n, name)
	}
	r := c.r
	r.mu.Lock()
	defer r.mu.Unlock()
	total := 0
	for kind, n := range r.count {
		total += n
		c.say("%7d x %s", n, kindNames[kind])
	}
	covered := uint64(0)
	for _, s := range r.seen {
		covered += s.last - s.first + 1
	}
	c.say("%d requests answered, %d with an unknown outcome, not done: %v; watched %d revisions in %d spans", total, r.unsure, r.refuse, covered, len(r.seen))
}
