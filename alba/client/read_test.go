package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/backend"
	"openvstorage/internal/gate"
)

// dense returns n bytes none of which can be left out, so that chunks have no tables.
func dense(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// plainPreset stores bytes as they are: a range of dense ones is a range of a fragment.
func plainPreset(p policy.Policy) preset.Preset {
	s := albatest.Small(p)
	s.Scheme.Compression = preset.CompressionNone
	return s
}

// heard collects what a client tells of fragments and ranges.
type heard struct {
	mu     sync.Mutex
	bad    []client.Bad
	unread []client.Unread
}

func (h *heard) listen(o *client.Options) {
	next := o.Bad
	o.Bad = func(b client.Bad) {
		h.mu.Lock()
		h.bad = append(h.bad, b)
		h.mu.Unlock()
		next(b)
	}
	o.Unread = func(u client.Unread) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.unread = append(h.unread, u)
	}
}

// takeAll returns what was heard since the last call.
func (h *heard) takeAll() (bad []client.Bad, unread []client.Unread) {
	h.mu.Lock()
	defer h.mu.Unlock()
	bad, unread = h.bad, h.unread
	h.bad, h.unread = nil, nil
	return bad, unread
}

// opened is a backend with one object "o" in namespace "ns", and its manifest.
type opened struct {
	*albatest.Backend
	heard heard
	want  []byte
	m     *manifest.Manifest
	opt   client.Options // those of the client
}

func withObject(t *testing.T, p preset.Preset, size int) *opened {
	t.Helper()
	o := &opened{want: data(size, 21)}
	if p.Scheme.Compression == preset.CompressionNone {
		o.want = dense(size, 21)
	}
	o.Backend = albatest.New(t, p.Policies[0].Width(), p, func(c *client.Options) {
		withKey(c)
		o.heard.listen(c)
		o.opt = *c
	})
	check(t, o.CreateNamespace(ctx, "ns"))
	check(t, o.Namespace("ns").Put(ctx, "o", o.want))
	o.m = o.manifest(t, "o")
	return o
}

func (o *opened) manifest(t *testing.T, name string) *manifest.Manifest {
	t.Helper()
	rec, err := o.NSM.Get(ctx, 1, name, userfn.Consistent)
	check(t, err)
	m, err := manifest.Decode(rec.Manifest)
	check(t, err)
	return m
}

// another is a second client of the same disks and managers, which remembers what it
// has read.
func (o *opened) another(t *testing.T) *client.Client {
	c := client.New(o.opt)
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

// disk is where a fragment is.
func (o *opened) disk(chunk, fragment int) uint64 { return o.m.Chunks[chunk].Fragments[fragment].OSD }

// fault injects a rule on the reads of one fragment.
func (o *opened) fault(chunk, fragment int, r osdtest.Rule) *osdtest.Injected {
	r.Ops, r.Prefix = []osdtest.Op{osdtest.Read}, o.m.Key(chunk, fragment).Append(nil)
	return o.Faults[o.disk(chunk, fragment)].Add(r)
}

// holds reads a range of the object and compares it.
func (o *opened) holds(t *testing.T, off, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := o.Namespace("ns").Get(ctx, "o", p, int64(off))
	if err != nil || got != n || !bytes.Equal(p, o.want[off:off+n]) {
		t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
	}
}

var errDisk = errors.New("the medium failed")

// Whatever up to m fragments of a chunk suffer, every range is read right; with
// more of them the error names object, namespace and what each disk said.
func TestReadsWithAnythingWrong(t *testing.T) {
	for name, p := range presets() {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(12) {
				r := rand.New(rand.NewPCG(seed, 31))
				o := withObject(t, p, 150_000+r.IntN(100_000))
				for chunk := range o.m.Chunks {
					m := int(o.m.Policy.M)
					for _, fragment := range r.Perm(o.m.Policy.Width())[:r.IntN(m+1)] {
						switch number := o.disk(chunk, fragment); r.IntN(4) {
						case 0:
							o.fault(chunk, fragment, osdtest.Rule{Err: errDisk})
						case 1:
							o.fault(chunk, fragment, osdtest.Rule{Flip: true})
						case 2:
							key := o.m.Key(chunk, fragment).Append(nil)
							o.Disks[number].Corrupt(key, r.IntN(int(o.m.Chunks[chunk].Shard)))
						case 3:
							key := o.m.Key(chunk, fragment).Append(nil)
							check(t, o.Disks[number].Apply(ctx, nil, []osd.Update{{Key: key, Delete: true}}))
						}
					}
				}
				for range 20 {
					off := r.IntN(len(o.want))
					o.holds(t, off, 1+r.IntN(min(len(o.want)-off, 90_000)))
				}
				if _, unread := o.heard.takeAll(); len(unread) != 0 {
					t.Errorf("seed %d: unread: %v", seed, unread)
				}
			}
		})
	}
}

// More than m fragments of a chunk are bad: the error names the object and the chunk, and
// says of each disk what is wrong. Options.Unread hears of it. Ranges of other chunks are
// read.
func TestUnreadableRangeNamesDisks(t *testing.T) {
	o := withObject(t, plainPreset(twoOne), 200_000)
	o.fault(1, 0, osdtest.Rule{Err: errDisk})
	o.fault(1, 1, osdtest.Rule{Flip: true})
	off := 64<<10 + 10
	_, err := o.Namespace("ns").Get(ctx, "o", make([]byte, 100), int64(off))
	if !errors.Is(err, errDisk) {
		t.Fatalf("the error is: %v", err)
	}
	for _, part := range []string{"object o of namespace ns", "chunk 1", "2 of its 3", fmt.Sprintf("disk/%d", o.disk(1, 0)), fmt.Sprintf("disk/%d", o.disk(1, 1))} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	bad, unread := o.heard.takeAll()
	if len(unread) == 0 || unread[0].Name != "o" || unread[0].Namespace != 1 || unread[0].Object != o.m.Object || unread[0].Range.Chunk != 1 || unread[0].Err == nil {
		t.Errorf("unread: %+v", unread)
	}
	for _, b := range bad { // the medium's error says nothing of the fragment
		if b.Chunk != 1 || b.Fragment != 1 || b.OSD != o.disk(1, 1) || b.Object != o.m.Object || b.Name != "o" {
			t.Errorf("reported as bad: %+v", b)
		}
	}
	if len(bad) == 0 || o.Stats().Unreadable == 0 {
		t.Errorf("%d bad, %d unreadable", len(bad), o.Stats().Unreadable)
	}
	o.holds(t, 0, 64<<10)
	o.holds(t, 128<<10, 60_000)
}

// A disk that is slow is not waited for: others make the range, once its patience is
// over, and what it reads in the end is nobody's any more.
func TestSlowReadIsHedged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := withObject(t, plainPreset(twoOne), 64<<10)
		door := gate.New()
		rule := o.fault(0, 0, osdtest.Rule{Gate: door})
		begun := time.Now()
		o.holds(t, 0, 4096)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if s := o.Stats(); s.Hedged != 1 || s.Degraded != 1 {
			t.Errorf("hedged %d, made of others %d", s.Hedged, s.Degraded)
		}
		rule.Remove()
		door.Open()
		synctest.Wait()
		o.holds(t, 0, 64<<10)
		if bad, unread := o.heard.takeAll(); len(bad)+len(unread) != 0 {
			t.Errorf("slow is not bad: %v, %v", bad, unread)
		}
	})
}

// Of a slow disk and others the first that can give the range does, in whatever
// order they answer, and also if only one of both can.
func TestHedgeTakesWhateverAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		own, others error
		ownFirst    bool
		fails       bool
	}{
		"own comes first":                      {ownFirst: true},
		"own comes first, and the others fail": {ownFirst: true, others: errDisk},
		"the others fail, then own comes":      {others: errDisk},
		"own fails first":                      {ownFirst: true, own: errDisk},
		"own fails last, the others come":      {own: errDisk},
		"all fail, own first":                  {ownFirst: true, own: errDisk, others: errDisk, fails: true},
		"all fail, own last":                   {own: errDisk, others: errDisk, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := withObject(t, plainPreset(twoOne), 64<<10)
				own, others := gate.New(), gate.New()
				o.fault(0, 0, osdtest.Rule{Gate: own, Err: c.own})
				o.fault(0, 1, osdtest.Rule{Gate: others, Err: c.others})
				o.fault(0, 2, osdtest.Rule{Gate: others, Err: c.others})
				p := make([]byte, 4096)
				done := make(chan error, 1)
				go func() {
					_, err := o.Namespace("ns").Get(ctx, "o", p, 0)
					done <- err
				}()
				check(t, own.Arrived(ctx, 1))
				check(t, others.Arrived(ctx, 2))
				first, second := others, own
				if c.ownFirst {
					first, second = own, others
				}
				first.Open()
				synctest.Wait() // what came has been taken
				second.Open()
				err := <-done
				if c.fails != errors.Is(err, errDisk) || !c.fails && (err != nil || !bytes.Equal(p, o.want[:4096])) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// Some of the disks that are asked in place of one that is gone are slow too: other disks
// are asked, as long as there are any.
func TestOthersThatAreSlowAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := withObject(t, plainPreset(policy.Policy{K: 2, M: 3, C: 4, X: 5}), 64<<10)
		o.Take(o.disk(0, 0))
		var doors []*gate.Gate
		for _, slow := range []int{1, 2} {
			door := gate.New()
			doors = append(doors, door)
			o.fault(0, slow, osdtest.Rule{Gate: door})
		}
		o.holds(t, 0, 4096) // of the last two
		if o.Stats().Degraded != 1 {
			t.Errorf("made of others: %d", o.Stats().Degraded)
		}
		for _, door := range doors {
			check(t, door.Arrived(ctx, 1))
			door.Open()
		}
		synctest.Wait()
		o.Return(o.disk(0, 0))
	})
}

// scribbler is an OSD that writes into what it was given to read into, late.
type scribbler struct {
	osd.OSD
	door *gate.Gate
}

func (s *scribbler) Read(ctx context.Context, key []byte, off uint32, p []byte, crcs []uint32) error {
	if err := s.door.Hold(ctx); err != nil {
		return err
	}
	for range 5 {
		for i := range p {
			p[i] = 0xee
		}
		for i := range crcs {
			crcs[i] = 0xeeeeeeee
		}
	}
	return errDisk
}

// What a disk that is late reads into is in no other use, whatever became of the
// read that it was for: hedged, given up, or served by others.
func TestLateReadKeepsItsMemory(t *testing.T) {
	o := withObject(t, plainPreset(fourTwo), 512<<10)
	door := gate.New()
	slow := o.disk(0, 1)
	o.Fleet.Disk(slow).Attach(&scribbler{o.Disks[slow], door})
	for range 8 { // some hedged, some given up
		short, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			_, err := o.Namespace("ns").Get(short, "o", make([]byte, 64<<10), 0)
			done <- err
		}()
		check(t, door.Arrived(ctx, 1))
		cancel()
		<-done
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 33))
			for range 30 {
				off := r.IntN(len(o.want) - 1)
				p := make([]byte, 1+r.IntN(min(len(o.want)-off, 128<<10)))
				if _, err := o.Namespace("ns").Get(ctx, "o", p, int64(off)); err != nil || !bytes.Equal(p, o.want[off:off+len(p)]) {
					t.Errorf("%d bytes at %d: %v", len(p), off, err)
				}
			}
		})
	}
	door.Open()
	all.Wait()
	o.Fleet.Disk(slow).Attach(o.Faults[slow])
	same(t, o.Namespace("ns"), "o", o.want)
}

// A read that is given up ends at once at whatever it waits for, says so, and is no
// news of the object; the next one is served.
func TestReadsEndWithTheirContext(t *testing.T) {
	for name, c := range map[string]struct {
		held  []int // fragments whose reads are held
		taken []int // whose disks are away
	}{
		"its own disk":                 {held: []int{0}},
		"its own disk and the others":  {held: []int{0, 1, 2}},
		"the others":                   {held: []int{1, 2}, taken: []int{0}},
		"a disk with nobody beside it": {held: []int{0}, taken: []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := withObject(t, plainPreset(twoOne), 64<<10)
				for _, i := range c.taken {
					o.Take(o.disk(0, i))
				}
				door := gate.New()
				var rules []*osdtest.Injected
				for _, i := range c.held {
					rules = append(rules, o.fault(0, i, osdtest.Rule{Gate: door}))
				}
				short, cancel := context.WithCancel(ctx)
				done := make(chan error, 1)
				go func() {
					_, err := o.Namespace("ns").Get(short, "o", make([]byte, 4096), 0)
					done <- err
				}()
				check(t, door.Arrived(ctx, len(c.held)))
				cancel()
				if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("it ended with %v", err)
				}
				if bad, unread := o.heard.takeAll(); len(bad)+len(unread) != 0 {
					t.Errorf("heard of it: %v, %v", bad, unread)
				}
				door.Open()
				for _, r := range rules {
					r.Remove()
				}
				synctest.Wait()
				for _, i := range c.taken {
					o.Return(o.disk(0, i))
				}
				same(t, o.Namespace("ns"), "o", o.want)
			})
		})
	}
}

// A client that remembers where an object was finds out where it is now. A fragment that
// was repaired elsewhere is read there, an object that is gone is not found, and a new
// object of the same name is read as it is.
func TestManifestOfThePast(t *testing.T) {
	o := withObject(t, plainPreset(mirror), 100_000)
	other := o.another(t)
	remember := func() {
		t.Helper()
		same(t, other.Namespace("ns"), "o", o.want)
	}
	remember()
	for _, number := range []uint64{1, 2} { // one at a time, until both are others
		o.Take(number)
		o.Replace(number)
		check(t, o.Work.Survey(ctx))
		check(t, o.Work.Survey(ctx))
	}
	remember()
	check(t, o.Namespace("ns").Delete(ctx, []string{"o"}, nil))
	check(t, o.Work.Survey(ctx)) // the fragments, too
	if _, err := other.Namespace("ns").Get(ctx, "o", make([]byte, 10), 0); !errors.Is(err, backend.ErrNotFound) {
		t.Errorf("what was deleted: %v", err)
	}
	o.want = data(90_000, 22)
	check(t, o.Namespace("ns").Put(ctx, "o", o.want))
	remember()
	check(t, o.Namespace("ns").Delete(ctx, []string{"o"}, nil))
	o.want = data(80_000, 23)
	check(t, o.Namespace("ns").Put(ctx, "o", o.want))
	check(t, o.Work.Survey(ctx))
	remember()
}

// Readers of an object that is deleted meanwhile get all of its bytes or are told
// that it is gone, and never anything else.
func TestGetBesideDelete(t *testing.T) {
	o := withObject(t, albatest.Small(twoOne), 100_000)
	clients := []*client.Client{o.Client, o.another(t)}
	for round := range 10 {
		name := fmt.Sprint("p", round)
		want := data(100_000, uint64(round))
		check(t, o.Namespace("ns").Put(ctx, name, want))
		var all sync.WaitGroup
		ready := make(chan struct{}, 4)
		for i := range 4 {
			all.Go(func() {
				p := make([]byte, len(want))
				for first := true; ; first = false {
					n, err := clients[i%2].Namespace("ns").Get(ctx, name, p, 0)
					if first {
						ready <- struct{}{}
					}
					if errors.Is(err, backend.ErrNotFound) {
						return
					}
					if err != nil && err != io.EOF || !bytes.Equal(p[:n], want) {
						t.Errorf("get: %d, %v", n, err)
						return
					}
				}
			})
		}
		for range cap(ready) {
			<-ready
		}
		check(t, o.Namespace("ns").Delete(ctx, []string{name}, nil))
		check(t, o.Work.Survey(ctx))
		all.Wait()
	}
	o.Check()
}

// A disk that does not answer is not asked while others can be, and is again once it
// does.
func TestSilentDiskIsNotAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := withObject(t, plainPreset(twoOne), 64<<10)
		watching, stop := context.WithCancel(ctx)
		go o.Fleet.Watch(watching, func(*fleet.Disk, fleet.Condition, fleet.Condition) {})
		own := o.disk(0, 0)
		door := gate.New()
		rule := o.Faults[own].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read}, Gate: door})
		o.holds(t, 0, 4096)
		time.Sleep(20 * time.Second) // of the bubble: the read stays under way
		if o.Fleet.Disk(own).Silent() == nil {
			t.Fatal("the disk is not known to hang")
		}
		hits := rule.Hits()
		begun := time.Now()
		for range 100 {
			o.holds(t, 0, 4096)
		}
		if rule.Hits() != hits || time.Since(begun) != 0 {
			t.Errorf("it was asked %d times, for %v", rule.Hits()-hits, time.Since(begun))
		}
		rule.Remove()
		door.Open()
		time.Sleep(20 * time.Second)
		reads := o.Faults[own].Counted(osdtest.Read).Calls
		for range 64 {
			o.holds(t, 0, 4096)
		}
		if o.Faults[own].Counted(osdtest.Read).Calls == reads {
			t.Error("it answers, and is not asked")
		}
		stop()
		synctest.Wait()
	})
}
