package maintenance_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/backend"
)

var (
	histories   = flag.Int("histories", 100, "histories of TestHistories")
	historySeed = flag.Int64("history.seed", -1, "only the history with this seed")
)

// history is one plan that a seed makes: clients put, overwrite and delete objects and
// namespaces, disks fail calls, go away, come back, come new, are drained and given up, and
// agents repair, move and collect, one in the middle of another, die and are replaced. The
// model is what clients were told.
type history struct {
	t    *testing.T
	seed uint64
	r    *rand.Rand
	b    *albatest.Backend
	g    *team

	objects map[string]map[string]*content // of each namespace, by name
	number  map[string]uint64              // of each namespace
	away    []uint64                       // disks that were taken away
	rules   []*osdtest.Injected
	busy    [2]bool // agents at work
	depth   int     // of steps in the middle of others
	ended   bool

	done  tallied
	names int
	data  uint64
	log   []string
}

// content is what an object may hold: what was written last, or what a put that failed may
// have left. 0: it may be absent.
type content struct {
	may     []uint64
	version backend.Version
}

// size is how large the object of some data is: in fragments, or small enough to be inline.
func size(data uint64) int {
	if data%5 == 0 {
		return preset.InlineLimit / 2
	}
	return preset.InlineLimit + 1000
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *history) fatal(format string, args ...any) {
	h.t.Helper()
	for _, l := range h.log[max(0, len(h.log)-60):] {
		h.t.Log(l)
	}
	h.t.Fatalf("seed %d: "+format, append([]any{h.seed}, args...)...)
}

func (h *history) ns() string { return slices.Sorted(maps.Keys(h.objects))[h.r.IntN(len(h.objects))] }

func (h *history) put() {
	ns := h.ns()
	name := fmt.Sprint("o", h.r.IntN(16))
	c := h.objects[ns][name]
	h.data++
	version := backend.Version(0)
	switch {
	case c != nil && (len(c.may) > 1 || c.version == 0):
		return // nobody knows its version
	case c != nil:
		version = c.version
	default:
		c = &content{may: []uint64{0}}
		h.objects[ns][name] = c
	}
	v, err := h.b.Namespace(ns).PutIf(ctx, name, osdtest.Data(size(h.data), h.data), version)
	h.b.Settle()
	h.note("put %s/%s %d: %v", ns, name, h.data, err)
	if err == nil {
		*c = content{[]uint64{h.data}, v}
		return
	}
	c.may = append(c.may, h.data)
}

func (h *history) delete() {
	ns := h.ns()
	for _, name := range slices.Sorted(maps.Keys(h.objects[ns])) {
		if h.r.IntN(4) > 0 {
			continue
		}
		err := h.b.Namespace(ns).Delete(ctx, []string{name}, nil)
		h.note("delete %s/%s: %v", ns, name, err)
		if err != nil {
			h.fatal("delete of %s/%s: %v", ns, name, err)
		}
		delete(h.objects[ns], name)
		return
	}
}

func (h *history) namespaces() {
	if len(h.objects) > 2 && h.r.IntN(2) == 0 {
		ns := h.ns()
		h.note("delete namespace %s: %v", ns, h.b.DeleteNamespace(ctx, ns))
		delete(h.objects, ns)
		return
	}
	h.names++
	ns := fmt.Sprint("ns", h.names)
	check(h.t, h.b.CreateNamespace(ctx, ns))
	h.objects[ns] = make(map[string]*content)
	h.number[ns] = uint64(h.names)
}

// spared reports whether every object can be read without a disk and without those that are
// away.
func (h *history) spared(disk uint64) bool {
	for ns := range h.objects {
		list, err := h.b.NSM.List(ctx, h.number[ns], "", "", 200, userfn.Consistent)
		check(h.t, err)
		for _, o := range list {
			for _, c := range o.Chunks {
				there := 0
				for _, f := range c.Fragments {
					if _, known := h.b.Disks[f.OSD]; known && h.b.Fleet.Disk(f.OSD) != nil && f.OSD != disk && !slices.Contains(h.away, f.OSD) {
						there++
					}
				}
				if there < int(o.Policy.K) {
					return false
				}
			}
		}
	}
	return true
}

// there returns the disks that are of the backend and not away.
func (h *history) there() (list []uint64) {
	for n := range h.b.Disks {
		if h.b.Fleet.Disk(n) != nil && !slices.Contains(h.away, n) {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

func (h *history) disks() {
	there := h.there()
	n := there[h.r.IntN(len(there))]
	switch h.r.IntN(6) {
	case 0: // it goes away, and may come back
		if len(there) > 3 && len(h.away) < 2 {
			h.note("take %d", n)
			h.b.Take(n)
			h.away = append(h.away, n)
		}
	case 1:
		h.back()
	case 2: // it dies for good
		if len(there) > 3 && h.spared(n) {
			h.note("lose %d", n)
			h.b.Take(n)
			check(h.t, h.b.ABM.LoseOSD(ctx, n))
			h.b.Fleet.Remove(n)
			delete(h.b.Disks, n)
			delete(h.b.Faults, n)
		}
	case 3:
		if h.r.IntN(2) == 0 && len(there) > 4 {
			err := h.b.ABM.DecommissionOSD(ctx, n)
			h.note("drain %d: %v", n, err)
			if err == nil {
				h.b.Fleet.Disk(n).SetLeaving(true)
			}
		}
	case 4:
		if len(there) < 9 {
			h.note("new disk %d", h.b.AddDiskOn(fmt.Sprint("node", h.r.IntN(3)), fmt.Sprint("zone", h.r.IntN(2))))
		}
	case 5: // calls fail, before or after they took effect
		op := []osdtest.Op{osdtest.Apply, osdtest.Read}[h.r.IntN(2)]
		h.note("fault on %d", n)
		h.rules = append(h.rules, h.b.Faults[n].Add(osdtest.Rule{
			Ops: []osdtest.Op{op}, Skip: h.r.IntN(6), Count: 1 + h.r.IntN(3), Err: errBroken, After: h.r.IntN(2) == 0,
		}))
	}
}

func (h *history) back() {
	for _, n := range h.away {
		if h.b.Fleet.Disk(n) != nil {
			h.note("return %d", n)
			h.b.Return(n)
		}
	}
	h.away = nil
}

// tallied counts what histories did, so that they do not do nothing.
type tallied struct{ repaired, moved, orphans, inTheMiddle, dead uint64 }

func (n *tallied) add(o tallied) {
	n.repaired += o.repaired
	n.moved += o.moved
	n.orphans += o.orphans
	n.inTheMiddle += o.inTheMiddle
	n.dead += o.dead
}

// agent has one agent do something. What fails is tried again.
func (h *history) agent() {
	i := h.r.IntN(len(h.g.works))
	if h.busy[i] {
		i = 1 - i
	}
	if h.busy[i] {
		return
	}
	w := h.g.works[i]
	was := w.Stats()
	h.busy[i] = true
	defer func() { h.busy[i] = false }()
	var err error
	what := h.r.IntN(8)
	switch {
	case what < 4:
		w.Refresh(ctx)
		err = w.Survey(ctx)
	case what == 4:
		err = w.Help(ctx)
	case what == 5:
		err = w.Collect(ctx, 0)
	case what == 6:
		err = w.ScrubSome(ctx, 100)
		err = errors.Join(err, w.Repair(ctx))
	default: // it dies some calls from now; another comes
		h.g.lines[i].left.Store(int64(h.r.IntN(12)))
		if err = w.Survey(ctx); errors.Is(err, errDead) {
			h.done.dead++
		}
		h.g.lines[i].left.Store(0)
		h.g.replace(i, h.change)
	}
	h.note("agent %d does %d: %v", i, what, err)
	s := w.Stats()
	h.done.add(tallied{repaired: s.Repaired - was.Repaired, moved: s.Moved - was.Moved, orphans: s.Orphans - was.Orphans})
}

// change has another agent, a client or a disk come in the middle of an agent's work.
func (h *history) change(o *maintenance.Options) {
	o.RebuildAfter, o.Balance, o.Tick = 50*time.Second, 0.0005, time.Nanosecond
	invalidate := o.Invalidate
	o.Invalidate = func(ns uint64, name string) {
		invalidate(ns, name)
		if h.ended || h.depth > 2 || h.r.IntN(4) > 0 {
			return
		}
		h.depth++
		h.note("in the middle of that:")
		h.done.inTheMiddle++
		h.step()
		h.depth--
	}
}

func (h *history) step() {
	switch n := h.r.IntN(20); {
	case n < 7:
		for range 1 + h.r.IntN(4) {
			h.put()
		}
	case n < 8:
		h.delete()
	case n < 9:
		h.namespaces()
	case n < 14:
		h.disks()
	case n < 15:
		h.g.now.Add(int64(h.r.IntN(90)))
	default:
		h.agent()
	}
}

// end has all faults end and the agents do what is left, and judges.
func (h *history) end() {
	h.ended = true
	for _, r := range h.rules {
		r.Remove()
	}
	h.back()
	for range 5 { // whatever is being drained, the rest can keep every policy
		h.b.AddDiskOn("node0", "zone0")
	}
	rested(h.b)
	for range 5 {
		for _, w := range h.g.works {
			w.Refresh(ctx)
			_ = w.Repair(ctx)
			if err := w.Survey(ctx); err != nil {
				h.note("last survey: %v", err)
			}
			if err := w.Collect(ctx, 0); err != nil {
				h.note("last collection: %v", err)
			}
		}
		h.g.now.Add(61)
	}
	for ns, list := range h.objects {
		for name, c := range list {
			p := make([]byte, 2*preset.InlineLimit)
			n, err := h.b.Namespace(ns).Get(ctx, name, p, 0)
			p = p[:n]
			switch {
			case errors.Is(err, backend.ErrNotFound) && slices.Contains(c.may, 0):
			case err != nil && !errors.Is(err, io.EOF):
				h.fatal("object %s/%s, which may be %v: %v", ns, name, c.may, err)
			case !slices.ContainsFunc(c.may, func(d uint64) bool { return d > 0 && string(p) == string(osdtest.Data(size(d), d)) }):
				h.fatal("object %s/%s is none of %v", ns, name, c.may)
			}
		}
	}
	h.b.Check()
	if h.t.Failed() {
		h.fatal("what is stored is not what is named")
	}
	for i, w := range h.g.works {
		if n := w.Narrow(); n != 0 {
			h.fatal("agent %d finds %d narrow objects", i, n)
		}
	}
	totals, err := (abm.Queue{Client: h.b.ABM}).WorkTotals(ctx, userfn.Consistent)
	if err != nil || totals.Items != 0 {
		h.fatal("%d items are left in the queue, %v", totals.Items, err)
	}
}

// TestHistories runs whole histories, each from one seed, and judges by a model: no object is
// lost, none is falsified, no fragment is left that no object names, and every object is whole
// at the end.
func TestHistories(t *testing.T) {
	first, n := uint64(0), *histories
	if *historySeed >= 0 {
		first, n = uint64(*historySeed), 1
	}
	if testing.Short() {
		n = min(n, 20)
	}
	var all tallied
	for seed := first; seed < first+uint64(n); seed++ {
		all.add(runHistory(t, seed))
	}
	t.Logf("%+v", all)
	if n < 20 {
		return
	}
	if all.repaired < 100 || all.moved < 100 || all.orphans < 10 || all.inTheMiddle < 100 || all.dead < 10 {
		t.Errorf("%d histories prove little: %+v", n, all)
	}
}

func runHistory(t *testing.T, seed uint64) tallied {
	policies := []policy.Policy{{K: 2, M: 1, C: 2, X: 9}, {K: 2, M: 2, C: 3, X: 9}, {K: 1, M: 1, C: 1, X: 9}, {K: 3, M: 2, C: 4, X: 9}}
	h := &history{
		t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 15)),
		objects: make(map[string]map[string]*content), number: make(map[string]uint64),
	}
	h.b = albatest.New(t, 6, albatest.Small(policies[seed%uint64(len(policies))]), func(o *client.Options) { o.Patience = time.Millisecond })
	h.g = newTeam(h.b, 2, h.change)
	h.namespaces()
	for range 120 {
		h.step()
	}

	h.end()
	return h.done
}
