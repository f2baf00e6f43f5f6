package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// fault is something that goes wrong, from a time on and for some time.
type fault struct {
	at, length time.Duration
	name       string
	who        int    // see group.whom
	number     int    // operations of a disk until it happens
	seed       uint64 // of what it draws itself
}

func (f fault) String() string {
	return fmt.Sprintf("%6.2fs for %5.2fs  %s  who %d, number %d, seed %d", f.at.Seconds(), f.length.Seconds(), f.name, f.who, f.number, f.seed)
}

// trials are the faults that there are. Those with members need others beside them.
var trials = []struct {
	name   string
	weight int
	many   bool // it needs a group of several
	happen func(f fault, g *group, rng *rand.Rand)
}{
	{"split", 3, true, fault.split},
	{"one way", 2, true, fault.oneWay},
	{"isolate", 3, true, fault.isolate},
	{"storm", 2, true, fault.storm},
	{"pause", 3, true, fault.pause},
	{"clock", 1, false, fault.clock},
	{"cut", 5, false, fault.cutPower},
	{"cut at an operation", 6, false, fault.cutAt},
	{"cut all", 2, false, fault.cutAll},
	{"kill", 3, false, fault.kill},
	{"restart", 1, false, fault.restart},
	{"full disk", 2, false, fault.full},
	{"failed sync", 2, false, fault.failSync},
	{"slow disk", 2, true, fault.slowly},
	{"grow", 2, true, fault.grow},
	{"shrink", 2, true, fault.shrink},
	{"replace", 2, true, fault.replace},
	{"transfer", 2, true, fault.transfer},
	{"ladder", 1, true, fault.ladder},
	{"zone", 4, true, fault.zone},
	{"zone apart", 4, true, fault.zoneApart},
	{"requirement", 4, true, fault.requirement},
}

// newPlan is the plan of a seed.
func newPlan(seed uint64) plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := plan{
		seed: seed, members: []int{1, 3, 3, 3, 5}[rng.IntN(5)], clients: 3 + rng.IntN(3), length: time.Duration(6+rng.IntN(8)) * time.Second,
		compact: 32 << 10, weather: fair,
	}
	p.slow = rng.IntN(2) == 0
	if p.members > 1 {
		p.zones = []int{0, 0, 0, 0, 2, 3}[rng.IntN(6)]
	}
	_, p.older = upgrades(p)
	total := 0
	for _, t := range trials {
		if p.allows(t.name, t.many) {
			total += t.weight
		}
	}
	// A member that is down has no faults: where there is one it comes back soon.
	most := int64(3 * time.Second)
	if p.members == 1 {
		most /= 8
	}
	for range 3 + rng.IntN(10) {
		pick := rng.IntN(total)
		for _, t := range trials {
			if !p.allows(t.name, t.many) {
				continue
			}
			if pick -= t.weight; pick < 0 {
				p.faults = append(p.faults, fault{
					at: time.Duration(rng.Int64N(int64(p.length))), length: 50*time.Millisecond + time.Duration(rng.Int64N(most)),
					name: t.name, who: rng.IntN(5), number: rng.IntN(40), seed: rng.Uint64(),
				})
				break
			}
		}
	}
	slices.SortFunc(p.faults, func(a, b fault) int { return int(a.at - b.at) })
	return p
}

func (p plan) allows(name string, many bool) bool {
	changes := name == "grow" || name == "shrink" || name == "replace" || name == "ladder"
	return (p.members > 1 || !many) && (name != "slow disk" || p.slow) && (!changes || p.zones == 0) && (p.zones > 0 || name != "zone" && name != "zone apart" && name != "requirement")
}

func (f fault) happen(g *group) {
	for _, t := range trials {
		if t.name == f.name {
			g.watch.note("%v", f)
			t.happen(f, g, rand.New(rand.NewPCG(f.seed, 3)))
			g.watch.note("over: %s", f.name)
			return
		}
	}
	panic("no fault is called " + f.name)
}

// split cuts the group into two parts.
func (f fault) split(g *group, rng *rand.Rand) {
	ids := g.ids()
	rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	at := 1 + rng.IntN(max(1, len(ids)/2))
	var list []direction
	for _, a := range ids[:at] {
		for _, b := range ids[at:] {
			list = append(list, direction{a, b}, direction{b, a})
		}
	}
	f.sever(g, list)
}

func (f fault) sever(g *group, list []direction) {
	mend := g.net.sever(list)
	g.wait(f.length)
	mend()
}

// oneWay cuts what one member sends, or what it receives, to some of the others.
func (f fault) oneWay(g *group, rng *rand.Rand) {
	m := g.whom(f.who)
	out := rng.IntN(2) == 0
	var list []direction
	for _, id := range g.ids() {
		if id == m.id || rng.IntN(4) == 0 {
			continue
		}
		d := direction{m.id, id}
		if !out {
			d = direction{id, m.id}
		}
		list = append(list, d)
	}
	f.sever(g, list)
}

// isolate cuts a member off from all others.
func (f fault) isolate(g *group, _ *rand.Rand) {
	m := g.whom(f.who)
	var list []direction
	for _, id := range g.ids() {
		if id != m.id {
			list = append(list, direction{m.id, id}, direction{id, m.id})
		}
	}
	f.sever(g, list)
}

// storm makes the weather bad.
func (f fault) storm(g *group, rng *rand.Rand) {
	g.net.change(weather{
		lose: rng.Float64() * 0.4, double: rng.Float64() * 0.3, late: rng.Float64() * 0.5, echo: rng.Float64() * 0.2,
		least: 100 * time.Microsecond, most: time.Duration(1+rng.IntN(30)) * time.Millisecond,
		lateness: time.Duration(1+rng.IntN(1500)) * time.Millisecond,
	})
	g.wait(f.length)
	g.net.change(fair)
}

// pause stops a member as SIGSTOP does: it knows nothing of the time that passes.
func (f fault) pause(g *group, _ *rand.Rand) {
	if l := g.whom(f.who).current(); l != nil {
		l.gate.close()
		g.wait(f.length)
		l.gate.open()
	}
}

// clock lets a member's clock jump.
func (f fault) clock(g *group, rng *rand.Rand) {
	m := g.whom(f.who)
	m.ahead.Store(rng.Int64N(int64(48*time.Hour)) - int64(24*time.Hour))
	g.wait(f.length)
	m.ahead.Store(0)
}

func cutOptions(rng *rand.Rand) crashdisk.Options {
	return []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}[rng.IntN(4)]
}

// cutPower cuts a member's power.
func (f fault) cutPower(g *group, rng *rand.Rand) {
	m := g.whom(f.who)
	f.ends(g, m, m.current(), cutOff(rng, cutOptions(rng)))
}

// ends ends a life, and starts the next one after a time.
func (f fault) ends(g *group, m *machine, l *life, keep func(*crashdisk.FS) *crashdisk.FS) {
	if l != nil && m.end(l, keep) {
		g.wait(f.length)
		m.start()
	}
}

// cutAt cuts a member's power at one of the next operations of its disk.
func (f fault) cutAt(g *group, rng *rand.Rand) {
	m := g.whom(f.who)
	l := m.current()
	if l == nil {
		return
	}
	ops := []faultdisk.Op{
		faultdisk.Datasync | faultdisk.Sync | faultdisk.SyncDir,
		faultdisk.Datasync | faultdisk.Sync | faultdisk.SyncDir | faultdisk.Write | faultdisk.Rename | faultdisk.Remove | faultdisk.Link | faultdisk.Truncate,
		faultdisk.Rename | faultdisk.Remove | faultdisk.SyncDir | faultdisk.Link,
	}[rng.IntN(3)]
	keep := cutOff(rng, cutOptions(rng))
	done := make(chan struct{})
	rule := faultdisk.Rule{Ops: ops, Skip: f.number, Times: 1, Before: func(op faultdisk.Op, name string) {
		if m.end(l, keep) {
			g.watch.note("member %d: its power is cut at %v of %s", m.id, op, name)
			close(done)
		}
	}}
	l.still(func() { l.fault.Inject(rule) })
	patient := time.NewTimer(f.length)
	defer patient.Stop()
	select {
	case <-done:
		g.wait(f.length / 2)
		m.start()
	case <-patient.C:
		f.ends(g, m, l, keep)
	case <-g.quiet:
	}
	select {
	case <-done:
		m.start()
	default:
	}
}

// cutAll cuts the power of all members at once. They start one by one, in any order.
func (f fault) cutAll(g *group, rng *rand.Rand) {
	all := g.all()
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var off []*machine
	for _, m := range all {
		if l := m.current(); l != nil && m.end(l, cutOff(rng, cutOptions(rng))) {
			off = append(off, m)
		}
	}
	for _, m := range off {
		g.wait(time.Duration(rng.Int64N(int64(f.length))))
		g.tasks.Go(m.start)
	}
}

func (f fault) kill(g *group, _ *rand.Rand) {
	m := g.whom(f.who)
	f.ends(g, m, m.current(), killed)
}

// restart closes a member, as a host does that ends.
func (f fault) restart(g *group, _ *rand.Rand) {
	m := g.whom(f.who)
	if l := m.current(); l != nil && m.closes(l) {
		g.wait(f.length)
		m.start()
	}
}

// full lets a member's disk run full.
func (f fault) full(g *group, _ *rand.Rand) {
	m := g.whom(f.who)
	l := m.current()
	if l == nil || !l.still(func() {
		if l.quota == nil {
			l.ill, l.quota = true, l.fault.Limit("/", int64(f.number)<<10)
		}
	}) {
		return
	}
	g.wait(f.length)
	l.still(func() {
		if l.quota != nil {
			l.quota.Remove()
			l.quota = nil
		}
	})
}

var errSync = errors.New("the medium is bad here")

// failSync lets a member's next syncs fail.
func (f fault) failSync(g *group, rng *rand.Rand) {
	m := g.whom(f.who)
	l := m.current()
	if l == nil {
		return
	}
	rule := faultdisk.Rule{Ops: faultdisk.Datasync | faultdisk.Sync, Skip: f.number / 4, Times: 1 + rng.IntN(3), Err: errSync}
	if rng.IntN(2) == 0 {
		rule.Path = memberDir + "/log/..."
	}
	var in *faultdisk.Injection
	if l.still(func() { l.ill, in = true, l.fault.Inject(rule) }) {
		g.wait(f.length)
		in.Remove()
	}
}

// slowly makes the syncs of a member's log slow.
func (f fault) slowly(g *group, rng *rand.Rand) {
	m := g.whom(f.who)
	most := time.Second
	if rng.IntN(3) == 0 {
		most = 8 * time.Second // the disk is as good as stalled
	}
	m.slow.Store(rng.Int64N(int64(most)))
	g.wait(f.length)
	m.slow.Store(0)
}

// change makes a change of the members, unless one is under way.
func (f fault) change(g *group, do func()) {
	select {
	case g.change <- struct{}{}:
		do()
		<-g.change
	default:
	}
}

func (f fault) grow(g *group, _ *rand.Rand) { f.change(g, func() { g.grow(2) }) }
func (f fault) shrink(g *group, rng *rand.Rand) {
	f.change(g, func() { g.shrink(rng.IntN(3) > 0) })
}

// replace wipes a member, and puts a new one in its place.
func (f fault) replace(g *group, _ *rand.Rand) {
	f.change(g, func() { g.replace(g.whom(f.who)) })
}

// ladder grows the group to five members, shrinks it to one, and lets it grow again.
func (f fault) ladder(g *group, rng *rand.Rand) {
	f.change(g, func() {
		for g.size() < arakoon.VotersMax && g.grow(2) {
		}
		for range 2 {
			g.shrink(rng.IntN(3) > 0)
		}
		g.grow(2)
	})
}

// zone cuts the power of all members of a zone.
func (f fault) zone(g *group, rng *rand.Rand) {
	name := g.zone(uint64(f.who))
	for _, m := range g.all() {
		if l := m.current(); l != nil && g.zone(m.id) == name && m.end(l, cutOff(rng, cutOptions(rng))) {
			g.tasks.Go(func() {
				g.wait(f.length)
				m.start()
			})
		}
	}
}

// zoneApart cuts a zone off from the others.
func (f fault) zoneApart(g *group, _ *rand.Rand) {
	var list []direction
	for _, a := range g.ids() {
		for _, b := range g.ids() {
			if g.zone(a) == g.zone(uint64(f.who)) && g.zone(b) != g.zone(a) {
				list = append(list, direction{a, b}, direction{b, a})
			}
		}
	}
	f.sever(g, list)
}

// requirement lowers the requirement of zones, and raises it again. Now and then a person says
// that the others are off.
func (f fault) requirement(g *group, rng *rand.Rand) {
	f.change(g, func() {
		g.require(1, rng.IntN(4) == 0)
		g.wait(f.length)
		g.require(zonesNeeded, false)
	})
}

func (f fault) transfer(g *group, _ *rand.Rand) { g.transfer(g.whom(0)) }
