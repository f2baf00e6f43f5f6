package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk/crashdisk"

	"github.com/google/uuid"
)

// plan is a history before it happens.
type plan struct {
	seed    uint64
	members int
	clients int
	length  time.Duration // of the time with faults
	compact int64         // Options.CompactBytes
	mixed   bool          // members roll their logs over, and cut them, at different sizes
	slow    bool          // syncs may take time
	older   bool          // members begin with an older release
	zones   int           // how many there are; two must have what is answered, and the members stay the same then; 0: none
	weather weather
	faults  []fault
}

func (p plan) String() string {
	s := fmt.Sprintf("seed %d: %d members, %d clients, slow disks %v, older releases %v, %d zones, %d faults", p.seed, p.members, p.clients, p.slow, p.older, p.zones, len(p.faults))
	for _, f := range p.faults {
		s += "\n  " + f.String()
	}
	return s
}

// group is a group of members in a history.
type group struct {
	plan    plan
	cluster uuid.UUID
	watch   *watch
	net     *network
	record  *recorder
	leases  *leases
	told    []*watcher
	tasks   sync.WaitGroup
	trials  sync.WaitGroup // clients and faults
	quiet   chan struct{}  // closed when the time for these is over
	end     atomic.Bool    // nothing is started any more
	change  chan struct{}  // full while a fault changes the members
	fetched atomic.Int64   // snapshots
	older   atomic.Bool    // members that are made now are of an older release
	raised  atomic.Bool    // all are of the newer one, and the group knows

	mu       sync.Mutex
	machines map[uint64]*machine
	next     uint64 // id of a member that comes
}

// healing is how long a group may take to make progress when all is well again.
const healing = 60 * time.Second

// outcome is what came of a history.
type outcome struct {
	group   *group
	decided bool
	err     error
}

// play plays a history in a bubble of synctest, and returns what is left to be judged.
func play(p plan) *group {
	g := newGroup(p)
	first := g.add(false)
	first.start()
	g.raise(first)
	for g.size() < p.members && g.watch.err() == nil {
		g.grow(2)
	}
	if p.zones > 0 {
		g.requireZones()
	}
	quit, cancel := context.WithCancel(context.Background())
	defer cancel()
	if g.watch.err() == nil {
		for i := range watchers {
			w := newWatcher(g, i, quit)
			g.told = append(g.told, w)
			g.tasks.Go(w.run)
		}
		g.trouble()
		g.heal()
	}
	cancel()
	g.stop()
	if err := g.leases.judge(); err != nil {
		g.watch.violation("%v", err)
	}
	return g
}

// How many of each there are in a history, beside its clients.
const (
	watchers = 2
	holders  = 3
)

// raise brings a group of one to the newest level that all members know.
func (g *group) raise(first *machine) {
	n, _ := first.node()
	if n == nil {
		return
	}
	if err := n.RaiseLevel(context.Background(), g.firstLevel(), true); err != nil {
		g.watch.violation("the level is not raised: %v", err)
	}
}

func newGroup(p plan) *group {
	g := &group{
		plan: p, cluster: uuid.MustParse("5d1f1f3c-25f1-4a0e-8f0e-07c1f4ad5a10"), watch: newWatch(), record: newRecorder(), leases: newLeases(),
		machines: map[uint64]*machine{}, next: 1, change: make(chan struct{}, 1), quiet: make(chan struct{}),
	}
	g.older.Store(p.older)
	g.net = newNetwork(p.seed, g.watch)
	g.net.change(p.weather)
	return g
}

// trouble lets clients and faults go on for the length of the plan.
func (g *group) trouble() {
	for i := range g.plan.clients {
		c := newClient(g, i)
		g.trials.Go(c.run)
	}
	for i := range holders {
		g.trials.Go(newHolder(g, i).run)
	}
	if at, happens := upgrades(g.plan); happens && g.plan.older {
		g.trials.Go(func() { g.upgrade(at) })
	}
	for _, f := range g.plan.faults {
		g.trials.Go(func() {
			if g.wait(f.at) {
				f.happen(g)
			}
		})
	}
	g.trials.Go(g.compare)
	time.Sleep(g.plan.length)
	close(g.quiet)
	g.trials.Wait()
}

// wait waits so long, or until clients and faults are to end; then it reports false.
func (g *group) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-g.quiet:
		return false
	}
}

// add makes a machine for a new member.
func (g *group) add(joining bool) *machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := &machine{group: g, id: g.next, joining: joining, disk: crashdisk.New()}
	if err := errors.Join(m.disk.MkdirAll("/", 0o700), m.disk.SyncDir("/")); err != nil {
		panic(err)
	}
	m.older.Store(g.older.Load())
	g.machines[m.id] = m
	g.next++
	return m
}

// forget takes a machine out for good.
func (g *group) forget(m *machine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.machines, m.id)
}

func (g *group) size() int { return len(g.all()) }

// all are the machines, in the order of their ids.
func (g *group) all() []*machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*machine, 0, len(g.machines))
	for _, m := range g.machines {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b *machine) int { return int(a.id) - int(b.id) })
	return list
}

func (g *group) ids() (list []uint64) {
	for _, m := range g.all() {
		list = append(list, m.id)
	}
	return list
}

func (g *group) ended() bool { return g.end.Load() }

// leader is a machine whose node believes that it leads, or nil.
func (g *group) leader() *machine {
	for _, m := range g.all() {
		if n, _ := m.node(); n != nil && n.Leading() {
			return m
		}
	}
	return nil
}

// whom is the machine that a fault is for: 0 is the leader.
func (g *group) whom(who int) *machine {
	if who == 0 {
		if m := g.leader(); m != nil {
			return m
		}
	}
	all := g.all()
	return all[who%len(all)]
}

// compare notes again and again what members have at an index that does not move meanwhile.
func (g *group) compare() {
	for g.wait(500 * time.Millisecond) {
		for _, m := range g.all() {
			if n, l := m.node(); n != nil {
				if index, content, err := contentOf(n); err == nil && !l.over() && index > 0 {
					g.watch.has(m.id, index, content)
				}
			}
		}
	}
}

// contentOf is all that users have stored, and the index that it is of; 0 if that moved.
func contentOf(n *arakoon.Node) (index uint64, content string, err error) {
	before, err := n.Visible() // Applied may lag behind what can be read
	if err != nil {
		return 0, "", err
	}
	err = n.Range(context.Background(), arakoon.Local, nil, nil, 0, func(k, v []byte) bool {
		content += fmt.Sprintf("%s=%s\n", k, v)
		return true
	})
	if after, e := n.Visible(); e != nil || after != before {
		before = 0
	}
	return before, content, err
}

// heal ends all faults, and holds what must be so then: the group goes on by itself, no
// answered write is missing, and all members have the same.
func (g *group) heal() {
	began := time.Now()
	g.net.change(fair)
	for _, m := range g.all() {
		m.calm()
		g.tasks.Go(m.start)
	}
	c := newClient(g, 1000)
	for c.write(c.some(set)) == 0 {
		if time.Since(began) > healing {
			g.watch.violation("no progress within %v after all was healed%s", healing, g.status())
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	g.settle()
	for pair := range pairs {
		for done := len(g.record.list); done == len(g.record.list); {
			if c.read(input{kind: getBoth, pair: pair}); time.Since(began) > 2*healing {
				g.watch.violation("no final read of pair %d within %v", pair, 2*healing)
				return
			}
		}
	}
	if g.equal(began); g.watch.err() == nil {
		g.hashes()
	}
	for _, w := range g.told {
		if err := w.until(g.watch.newestAnswered()); err != nil {
			g.watch.violation("%v", err)
		}
	}
}

// hashes compares the hashes of all members at one index.
func (g *group) hashes() {
	ctx, cancel := context.WithTimeout(context.Background(), healing)
	defer cancel()
	var index uint64
	var sum [32]byte
	if !g.lead(func(ctx context.Context, n *arakoon.Node) (err error) {
		index, sum, err = n.Hash(ctx)
		return err
	}) {
		g.watch.violation("no hash was made")
		return
	}
	for _, m := range g.all() {
		n, _ := m.node()
		if n == nil {
			continue
		}
		// A member that was opened with a longer log, which was cut since, has none.
		if s, err := n.HashAt(ctx, index); !errors.Is(err, arakoon.ErrNoHash) && (err != nil || s != sum) {
			g.watch.violation("member %d has hash %x at index %d, and not %x: %v", m.id, s, index, sum, err)
		}
	}
}

// status is what members know, a line each.
func (g *group) status() (s string) {
	for _, m := range g.all() {
		n, l := m.node()
		switch {
		case n != nil:
			s += fmt.Sprintf("\n  member %d: %+v", m.id, n.Status())
		case l != nil:
			s += fmt.Sprintf("\n  member %d: it is being opened", m.id)
		default:
			s += fmt.Sprintf("\n  member %d: down", m.id)
		}
	}
	return s
}

// equal waits until all members have applied all, and compares what they have.
func (g *group) equal(began time.Time) {
	for {
		indexes := map[uint64]int{}
		for _, m := range g.all() {
			if n, _ := m.node(); n != nil {
				if index, content, err := contentOf(n); err == nil && index >= g.watch.newestAnswered() {
					g.watch.has(m.id, index, content)
					indexes[index]++
				}
			}
		}
		for _, n := range indexes {
			if n == g.size() {
				return
			}
		}
		if time.Since(began) > 3*healing {
			g.watch.violation("members have not come to the same index within %v; %d was answered; members by index: %v", 3*healing, g.watch.newestAnswered(), indexes)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// stop closes everything.
func (g *group) stop() {
	g.end.Store(true)
	for _, m := range g.all() {
		m.calm()
	}
	g.tasks.Wait()
	for _, m := range g.all() {
		if l := m.current(); l != nil {
			m.closes(l)
		}
	}
	g.tasks.Wait()
	g.net.close()
	synctest.Wait()
}

// calm ends what a machine was made to suffer.
func (m *machine) calm() {
	m.slow.Store(0)
	if l := m.current(); l != nil {
		l.mu.Lock()
		l.wellLocked()
		l.mu.Unlock()
		l.gate.remove()
	}
}
