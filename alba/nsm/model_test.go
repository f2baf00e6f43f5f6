package nsm_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
)

// model is the manager with maps and no indexes.
type model struct {
	objects map[string]*nsm.Object
	dead    map[uint64]map[nsm.FragmentKey]bool // by OSD
	gone    map[[16]byte]uint64                 // id: newest epoch when it went
	version uint64
	epochs  nsm.Epochs
}

func newModel() *model {
	return &model{
		objects: map[string]*nsm.Object{}, dead: map[uint64]map[nsm.FragmentKey]bool{}, gone: map[[16]byte]uint64{},
		version: 1, epochs: nsm.Epochs{Minimum: 1, Next: 2},
	}
}

func (m *model) kill(o *nsm.Object) {
	m.gone[o.ID] = m.epochs.Next - 1
	for i, c := range o.Chunks {
		for j, f := range c.Fragments {
			m.bury(f.OSD, nsm.FragmentKey{Namespace: 1, ID: o.ID, Chunk: uint32(i), Fragment: uint16(j), Version: f.Version})
		}
	}
}

func (m *model) bury(osd uint64, k nsm.FragmentKey) {
	if osd == 0 {
		return
	}
	if m.dead[osd] == nil {
		m.dead[osd] = map[nsm.FragmentKey]bool{}
	}
	m.dead[osd][k] = true
}

// fresh says whether an object may have its id.
func (m *model) fresh(o *nsm.Object) bool {
	for _, other := range m.objects {
		if other.ID == o.ID {
			return false
		}
	}
	for i, c := range o.Chunks {
		for j, f := range c.Fragments {
			if m.dead[f.OSD][nsm.FragmentKey{Namespace: 1, ID: o.ID, Chunk: uint32(i), Fragment: uint16(j), Version: f.Version}] {
				return false
			}
		}
	}
	return m.gone[o.ID] < m.epochs.Minimum
}

func (m *model) put(mode nsm.Mode, version uint64, o *nsm.Object) (uint64, error) {
	old := m.objects[o.Name]
	var is uint64
	if old != nil {
		is = old.Version
	}
	switch {
	case old != nil && old.ID == o.ID:
		return is, nil
	case mode == nsm.CreateOrEqual && old != nil && old.Hash == o.Hash && old.Size == o.Size:
		if o.Epoch >= m.epochs.Minimum && o.Epoch < m.epochs.Next && m.fresh(o) {
			m.kill(o)
		}
		return is, nil
	case o.Epoch < m.epochs.Minimum || o.Epoch >= m.epochs.Next:
		return 0, nsm.ErrEpoch
	case !m.fresh(o):
		return 0, nsm.ErrIDUsed
	case mode != nsm.Replace && mode != nsm.ReplaceIf && old != nil:
		return 0, nsm.ErrExists
	case mode == nsm.ReplaceIf && version != is:
		return 0, nsm.ErrConflict
	}
	if old != nil {
		m.kill(old)
	}
	o.Version = m.version
	m.version++
	m.objects[o.Name] = o
	return o.Version, nil
}

// compare reads everything through the client and compares it.
func (m *model) compare(t *testing.T, c *nsm.Client) {
	t.Helper()
	var names []string
	for after := ""; ; {
		list, err := c.List(ctx, 1, "n", after, 3, userfn.Consistent)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			names = append(names, o.Name)
		}
		if len(list) < 3 {
			break
		}
		after = list[len(list)-1].Name
	}
	if all := slices.Sorted(maps.Keys(m.objects)); !slices.Equal(names, all) {
		t.Fatalf("listed %v, the model has %v", names, all)
	}
	onOSD := map[uint64][]string{}
	for _, name := range names {
		o, err := c.Get(ctx, 1, name, userfn.Consistent)
		if err != nil {
			t.Fatal(err)
		}
		mo := m.objects[name]
		if o.ID != mo.ID || o.Version != mo.Version || o.Revision != mo.Revision || string(o.Manifest) != string(mo.Manifest) || fmt.Sprint(o.Chunks) != fmt.Sprint(mo.Chunks) {
			t.Fatalf("%+v, the model has %+v", o, mo)
		}
		for _, chunk := range o.Chunks {
			for _, f := range chunk.Fragments {
				if f.OSD != 0 && !slices.Contains(onOSD[f.OSD], name) {
					onOSD[f.OSD] = append(onOSD[f.OSD], name)
				}
			}
		}
	}
	for osd := uint64(1); osd <= 9; osd++ {
		var listed []string
		for after, first := "", true; first || after != ""; first = false {
			list, next, err := c.ListByOSD(ctx, 1, osd, after, 2, userfn.Consistent)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range list {
				listed = append(listed, o.Name)
			}
			after = next
		}
		if !slices.Equal(listed, onOSD[osd]) {
			t.Fatalf("on OSD %d: %v, the model has %v", osd, listed, onOSD[osd])
		}
		dead, err := c.ListObsolete(ctx, osd, nil, nsm.MaxKeys, userfn.Consistent)
		if err != nil || len(dead) != len(m.dead[osd]) {
			t.Fatalf("to delete on OSD %d: %d, the model has %d (%v)", osd, len(dead), len(m.dead[osd]), err)
		}
		for _, k := range dead {
			if !m.dead[osd][k] {
				t.Fatalf("to delete on OSD %d: %+v", osd, k)
			}
		}
	}
	degraded := 0
	for _, o := range m.objects {
		if !o.Bucket().Full() {
			degraded++
		}
	}
	list, err := c.Degraded(ctx, 1, nsm.MaxPage, userfn.Consistent)
	if err != nil || len(list) != degraded {
		t.Fatalf("%d objects below full width, the model has %d (%v)", len(list), degraded, err)
	}
	s, err := c.Statistics(ctx, 1, userfn.Consistent)
	if err != nil || s.Objects != uint64(len(m.objects)) || s.Epochs != m.epochs {
		t.Fatalf("%+v, %v", s, err)
	}
}

// run makes random calls on a host and a model of it, and returns the host's
// bytes.
func run(t *testing.T, seed uint64, steps int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	s, c := host(t)
	m := newModel()
	ids := uint64(0)
	random := func() *nsm.Object {
		ids++
		n := ids
		if r.IntN(8) == 0 { // of an earlier attempt
			n = 1 + r.Uint64N(ids)
		}
		var osds []uint64
		if r.IntN(5) > 0 {
			for _, osd := range r.Perm(9)[:2+r.IntN(4)] {
				osds = append(osds, uint64(osd)+1)
			}
		}
		o := object(fmt.Sprintf("n%02d", r.IntN(12)), n, strings.Repeat("x", r.IntN(3)), osds...)
		if len(osds) > 2 && r.IntN(2) == 0 {
			o.Chunks[0].Fragments[r.IntN(len(osds))].OSD = 0
		}
		if len(osds) > 0 && r.IntN(3) == 0 {
			o.Chunks = append(o.Chunks, nsm.Chunk{Length: 8192, Fragments: slices.Clone(o.Chunks[0].Fragments)})
		}
		o.Epoch = m.epochs.Next - 1 - r.Uint64N(2)
		return o
	}
	for step := range steps {
		s.SetTime(int64(step))
		var err, expected error
		switch r.IntN(11) {
		case 0, 1, 2, 3, 4:
			p := m.randomPut(r, random())
			var res nsm.PutResult
			res, err = c.Put(ctx, 1, p.Mode, p.Version, p.Object)
			expected = m.putLike(t, p, res, err)
		case 10:
			puts := make([]nsm.Put, 1+r.IntN(6))
			for i := range puts {
				puts[i] = m.randomPut(r, random())
			}
			results, failed := c.PutMany(ctx, 1, puts)
			if failed != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, failed)
			}
			for i, o := range results {
				if expected := m.putLike(t, puts[i], o.PutResult, o.Err); expected == nil && o.Err != nil || !errors.Is(o.Err, expected) {
					t.Fatalf("seed %d step %d: put %d of %d: %v, the model says %v", seed, step, i, len(puts), o.Err, expected)
				}
			}
		case 5:
			names := []string{fmt.Sprintf("n%02d", r.IntN(12)), fmt.Sprintf("n%02d", r.IntN(12))}
			cond := &nsm.Condition{Name: fmt.Sprintf("n%02d", r.IntN(12)), Version: r.Uint64N(m.version)}
			old := m.objects[cond.Name]
			if old != nil && r.IntN(2) == 0 {
				cond.Version = old.Version
			}
			if old == nil && cond.Version != 0 || old != nil && cond.Version != old.Version {
				expected = nsm.ErrConflict
			} else {
				for _, name := range names {
					if o := m.objects[name]; o != nil {
						m.kill(o)
						delete(m.objects, name)
					}
				}
			}
			_, err = c.Delete(ctx, 1, names, cond)
		case 6, 7:
			err, expected = m.repair(r, c)
		case 8:
			osd := 1 + r.Uint64N(9)
			var keys []nsm.FragmentKey
			if keys, err = c.ListObsolete(ctx, osd, nil, 1+r.IntN(20), userfn.Consistent); err != nil {
				t.Fatal(err)
			}
			_, err = c.MarkDeleted(ctx, osd, keys)
			for _, k := range keys {
				delete(m.dead[osd], k)
			}
		case 9:
			if m.epochs.Next-m.epochs.Minimum < nsm.MaxEpochs && r.IntN(2) == 0 {
				m.epochs.Next++
				_, err = c.OpenEpoch(ctx, 1, m.epochs.Next-1)
			} else if m.epochs.Next-m.epochs.Minimum > 1 {
				m.epochs.Minimum++
				_, err = c.CloseEpoch(ctx, 1, m.epochs.Minimum-1)
			}
		}
		if expected == nil && err != nil || !errors.Is(err, expected) {
			t.Fatalf("seed %d step %d: %v, the model says %v", seed, step, err, expected)
		}
		check(t, s)
		if step%16 == 0 {
			m.compare(t, c)
		}
	}
	m.compare(t, c)
	return string(s.Dump())
}

// randomPut draws how an object is put.
func (m *model) randomPut(r *rand.Rand, o *nsm.Object) nsm.Put {
	p := nsm.Put{Mode: nsm.Mode(1 + r.IntN(4)), Version: r.Uint64N(2) * m.version, Object: o}
	if old := m.objects[o.Name]; old != nil && r.IntN(3) > 0 {
		p.Version = old.Version
	}
	return p
}

// putLike makes a put that the host has made, and returns what it should have
// said.
func (m *model) putLike(t *testing.T, p nsm.Put, is nsm.PutResult, err error) error {
	t.Helper()
	p.Object.ManifestSize = uint32(len(p.Object.Manifest))
	v, expected := m.put(p.Mode, p.Version, p.Object)
	if expected == nil && err == nil && v != is.Version {
		t.Fatalf("object %q: version %d, the model says %d", p.Object.Name, is.Version, v)
	}
	return expected
}

// repair changes one fragment of a random object, sometimes of a stale
// revision.
func (m *model) repair(r *rand.Rand, c *nsm.Client) (err, expected error) {
	names := slices.Sorted(maps.Keys(m.objects))
	if len(names) == 0 {
		return nil, nil
	}
	o := m.objects[names[r.IntN(len(names))]]
	if len(o.Chunks) == 0 {
		return nil, nil
	}
	chunk, fragment := r.IntN(len(o.Chunks)), r.IntN(o.Policy.Width())
	h := nsm.Change{Chunk: uint32(chunk), Fragment: uint16(fragment), To: nsm.Fragment{OSD: 1 + r.Uint64N(9), Version: o.Revision + 1}}
	u := nsm.Update{Name: o.Name, ID: o.ID, Revision: o.Revision, Epoch: m.epochs.Next - 1, Changes: []nsm.Change{h}, Manifest: []byte(fmt.Sprint("repaired ", h))}
	if r.IntN(6) == 0 {
		u.Revision++
		_, err = c.Update(ctx, 1, u)
		return err, nsm.ErrConflict
	}
	slot := &o.Chunks[chunk].Fragments[fragment]
	for j, f := range o.Chunks[chunk].Fragments {
		if j != fragment && f.OSD == h.To.OSD {
			expected = nsm.ErrSpread
		}
	}
	if m.dead[h.To.OSD][nsm.FragmentKey{Namespace: 1, ID: o.ID, Chunk: h.Chunk, Fragment: h.Fragment, Version: h.To.Version}] {
		expected = nsm.ErrConflict
	}
	if _, err = c.Update(ctx, 1, u); expected != nil {
		return err, expected
	}
	m.bury(slot.OSD, nsm.FragmentKey{Namespace: 1, ID: o.ID, Chunk: h.Chunk, Fragment: h.Fragment, Version: slot.Version})
	*slot = h.To
	o.Revision++
	o.Manifest = u.Manifest
	return err, nil
}

// Random calls do what they do to maps, every index holds after each, and the
// same calls leave the same bytes.
func TestModel(t *testing.T) {
	for seed := range uint64(8) {
		if run(t, seed, 300) != run(t, seed, 300) {
			t.Fatalf("seed %d: the same calls left other bytes", seed)
		}
	}
}

// No argument may panic, break an index, or leave something behind an error.
func FuzzFunctions(f *testing.F) {
	// Whole arguments to begin with: those of calls on another host.
	s, c := host(f)
	seeds := nsm.NewClient(tap{s, func(name string, arg []byte) {
		f.Add(uint8(slices.IndexFunc(nsm.Functions(), func(fn userfn.Function) bool { return fn.Name == name })), arg)
	}}, s)
	if _, err := c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 3)); err != nil {
		f.Fatal(err)
	}
	_, _ = seeds.Put(ctx, 1, nsm.ReplaceIf, 1, object("a", 2, "two", 4, 5, 0))
	_, _ = seeds.PutMany(ctx, 1, []nsm.Put{{nsm.Create, 0, object("b", 3, "three")}, {nsm.Replace, 0, object("a", 4, "four", 1, 2, 3)}})
	_, _ = seeds.Update(ctx, 1, nsm.Update{Name: "a", ID: id(1), Epoch: 1, Manifest: []byte("m"), Changes: []nsm.Change{{To: nsm.Fragment{OSD: 7, Version: 1}}}})
	_, _ = seeds.Delete(ctx, 1, []string{"a", "b"}, &nsm.Condition{Name: "a", Version: 1})
	_, _ = seeds.OpenEpoch(ctx, 1, 2)
	_, _ = seeds.CloseEpoch(ctx, 1, 1)
	_, _ = seeds.MarkDeleted(ctx, 1, []nsm.FragmentKey{{Namespace: 1, ID: id(1)}})
	_, _ = seeds.Deliver(ctx, 11, []nsm.Message{{Kind: nsm.MessageDeleteNamespace, Namespace: 1}, {Kind: nsm.MessageUnlinkOSD, OSD: 1, Lost: true}})
	_, _ = seeds.Cleanup(ctx, 1, 5)
	_, _ = seeds.ForgetOSD(ctx, 1)
	f.Fuzz(func(t *testing.T, which uint8, arg []byte) {
		s, c := host(t)
		if _, err := c.Put(ctx, 1, nsm.Create, 0, object("a", 1, "one", 1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		before := s.Dump()
		fn := nsm.Functions()[int(which)%len(nsm.Functions())]
		if _, err := s.Call(ctx, fn.Name, fn.Version, arg); err != nil && string(s.Dump()) != string(before) {
			t.Fatal("an error left something")
		}
		check(t, s)
	})
}

// tap tells of each call.
type tap struct {
	*nsmtest.Store
	tell func(name string, arg []byte)
}

func (t tap) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	t.tell(name, arg)
	return t.Store.Call(ctx, name, version, arg)
}

var _ userfn.Caller = (*nsmtest.Store)(nil)
var _ userfn.Reader = (*nsmtest.Store)(nil)
