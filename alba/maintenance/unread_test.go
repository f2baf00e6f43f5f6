package maintenance_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
)

// withUnread is a backend whose maintenance hears of ranges that cannot be read, with
// n objects.
func withUnread(t *testing.T, n int) *albatest.Backend {
	t.Helper()
	var b *albatest.Backend
	b = albatest.New(t, 3, twoOne, func(o *client.Options) {
		o.Unread = func(u client.Unread) { b.Work.Unread(u) }
	})
	fill(t, b, "ns", n)
	return b
}

// fails demands that an object cannot be read.
func fails(t *testing.T, b *albatest.Backend, name string) {
	t.Helper()
	if _, err := b.Namespace("ns").Get(ctx, name, make([]byte, 100_000), 0); err == nil {
		t.Fatalf("object %s is read", name)
	}
}

// failed demands how many objects cannot be read, and what is said of one.
func failed(t *testing.T, b *albatest.Backend, want uint64, says ...string) {
	t.Helper()
	n, example := b.Work.Failed()
	if n != want {
		t.Fatalf("%d objects fail: %s", n, example)
	}
	for _, part := range says {
		if !strings.Contains(example, part) {
			t.Errorf("%q is not in: %s", part, example)
		}
	}
}

func manifestOf(t *testing.T, b *albatest.Backend, name string) *manifest.Manifest {
	t.Helper()
	o, err := b.NSM.Get(ctx, 1, name, userfn.Consistent)
	check(t, err)
	m, err := manifest.Decode(o.Manifest)
	check(t, err)
	return m
}

// An object that could not be read is shown, with the reason, until it can be read
// again, or is gone, or another has its name.
func TestUnreadObjects(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, b *albatest.Backend){
		"the disks return": func(*testing.T, *albatest.Backend) {},
		"it is deleted": func(t *testing.T, b *albatest.Backend) {
			check(t, b.Namespace("ns").Delete(ctx, []string{"o0"}, nil))
		},
		"its namespace is deleted": func(t *testing.T, b *albatest.Backend) { check(t, b.DeleteNamespace(ctx, "ns")) },
		"another has its name": func(t *testing.T, b *albatest.Backend) {
			check(t, b.Namespace("ns").Delete(ctx, []string{"o0"}, nil))
			check(t, b.Namespace("ns").Put(ctx, "o0", []byte("short")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := withUnread(t, 2)
			failed(t, b, 0)
			b.Take(1)
			b.Take(2)
			fails(t, b, "o0")
			failed(t, b, 1, "object o0 of namespace 1", "disk/1", "disk/2")
			check(t, b.Work.Repair(ctx)) // reads it again
			failed(t, b, 1, "object o0 of namespace 1", "of the 2 fragments that are needed")
			end(t, b)
			if name == "the disks return" {
				b.Return(2) // one is enough
			}
			check(t, b.Work.Repair(ctx))
			failed(t, b, 0)
		})
	}
}

// Fragments that were found bad are listed until they are repaired, each where it is.
// Those of an object that cannot be repaired stay, and so does the reason.
func TestSuspects(t *testing.T) {
	b := withUnread(t, 1)
	m := manifestOf(t, b, "o0")
	spoil := func(fragment int) uint64 {
		number := m.Chunks[0].Fragments[fragment].OSD
		k := m.Key(0, fragment).Append(nil)
		for off := 0; off < int(m.Chunks[0].Shard); off += osd.BlockSize {
			b.Disks[number].Corrupt(k, off)
		}
		return number
	}
	known := func(fragment int, number uint64) bool {
		return b.Work.KnownBad(1, "o0", m.Object, 0, fragment, number)
	}
	first := spoil(0)
	verify(t, b, "ns", 1) // made of the others
	list, all := b.Work.Suspects(10)
	if all != 1 || len(list) != 1 || list[0].Name != "o0" || list[0].Namespace != 1 || len(list[0].Bad) != 1 || list[0].Bad[0].OSD != first {
		t.Fatalf("%d: %+v", all, list)
	}
	if list, all := b.Work.Suspects(0); all != 1 || len(list) != 0 {
		t.Errorf("of none: %d, %v", all, list)
	}
	if !known(0, first) || known(1, first) || known(0, first+1) {
		t.Error("another fragment is known as bad")
	}
	check(t, b.Work.Repair(ctx))
	if _, all := b.Work.Suspects(10); all != 0 || known(0, first) {
		t.Errorf("%d objects are suspect when all is repaired", all)
	}
	verify(t, b, "ns", 1)

	m = manifestOf(t, b, "o0")
	spoil(0)
	spoil(1)
	fails(t, b, "o0")
	failed(t, b, 1, "object o0")
	_ = b.Work.Repair(ctx)
	if _, all := b.Work.Suspects(10); all != 1 {
		t.Errorf("%d objects are suspect", all)
	}
	failed(t, b, 1, "object o0")
	check(t, b.Namespace("ns").Delete(ctx, []string{"o0"}, nil))
	check(t, b.Work.Repair(ctx))
	failed(t, b, 0)
	if _, all := b.Work.Suspects(10); all != 0 {
		t.Errorf("%d objects are suspect when none is there", all)
	}
}

// An audit names what is not where an object says, and what is there that no object
// names.
func TestAudit(t *testing.T) {
	b := albatest.New(t, 3, twoOne, nil)
	fill(t, b, "ns", 2)
	check(t, b.Work.Audit(ctx))
	m := manifestOf(t, b, "o0")
	number := m.Chunks[0].Fragments[1].OSD
	k := m.Key(0, 1)
	check(t, b.Disks[number].Apply(ctx, nil, []osd.Update{{Key: k.Append(nil), Delete: true}}))
	err := b.Work.Audit(ctx)
	if err == nil || !strings.Contains(err.Error(), "object o0 of namespace 1") || !strings.Contains(err.Error(), "is not on disk") {
		t.Errorf("a fragment that is gone: %v", err)
	}
	data := osdtest.Data(4096, 1)
	v := osd.Value{Data: data, Seed: 1, Epoch: 1, CRCs: []uint32{osd.BlockCRC(1, 0, data)}}
	check(t, b.Disks[number].Apply(ctx, nil, []osd.Update{{Key: k.Append(nil), Value: v}}))
	if err := b.Work.Audit(ctx); err == nil || !strings.Contains(err.Error(), "4096 bytes") {
		t.Errorf("a fragment that is short: %v", err)
	}
	stray(t, b, 1, 1, 30)
	err = b.Work.Audit(ctx)
	if err == nil || !strings.Contains(err.Error(), "no object names it") || !strings.Contains(err.Error(), "and 21 more") {
		t.Errorf("fragments that nobody names: %v", err)
	}
}

// A disk that cannot be read for a survey or a collection is skipped: the others are
// looked through, nothing of it is given up, and it is named.
func TestSurveyBesideABrokenDisk(t *testing.T) {
	b := albatest.New(t, 4, twoOne, nil)
	fill(t, b, "ns", 4)
	broken := errors.New("the medium failed")
	rule := b.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read, osdtest.Range, osdtest.Stat}, Err: broken})
	before := keys(t, b, 2)
	stray(t, b, 1, 1, 5)
	check(t, b.Work.Survey(ctx))
	err := b.Work.Collect(ctx, 0)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "disk/2") {
		t.Errorf("the collection: %v", err)
	}
	if n := keys(t, b, 2); n != before {
		t.Errorf("the broken disk has %d fragments of %d", n, before)
	}
	list, err := b.Disks[1].Range(ctx, nil, nil, 1000)
	check(t, err)
	if slices.ContainsFunc(list, func(i osd.Info) bool {
		k, err := manifest.ParseKey(i.Key)
		return err == nil && k.Object == manifest.ObjectID{k.Object[0], 0, 77} // stray's; others are random
	}) {
		t.Error("orphans of another disk are left")
	}
	rule.Remove()
	verify(t, b, "ns", 4)
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
}
