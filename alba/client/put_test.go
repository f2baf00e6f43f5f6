package client_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/nsmtest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/backend"
	"openvstorage/internal/gate"
)

// patient has puts wait for all fragments, however busy the machine.
func patient(o *client.Options) { o.Patience = time.Hour }

// A put is accepted with c of its k + m fragments, and below that fails, names the
// disks and leaves no object; what it leaves on disks is collected.
func TestPutsWithDisksThatFail(t *testing.T) {
	p := policy.Policy{K: 2, M: 3, C: 3, X: 5}
	for failing := range p.Width() + 1 {
		t.Run(fmt.Sprint(failing), func(t *testing.T) {
			b := albatest.New(t, p.Width(), albatest.Small(p), patient)
			check(t, b.CreateNamespace(ctx, "ns"))
			ns := b.Namespace("ns")
			for number := range uint64(failing) {
				b.Faults[number+1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errDisk, Count: 1})
			}
			want := data(60_000, 41)
			err := ns.Put(ctx, "o", want)
			left := p.Width() - failing
			switch accepted := left >= int(p.C); {
			case accepted:
				check(t, err)
				same(t, ns, "o", want)
				narrow, err := ns.(backend.Widths).Narrow(ctx, []string{"o"})
				if err != nil || len(narrow) != min(failing, 1) || b.Stats().Narrow != uint64(min(failing, 1)) {
					t.Errorf("narrow: %v, %v, counted %d", narrow, err, b.Stats().Narrow)
				}
			case !errors.Is(err, errDisk):
				t.Fatalf("with %d disks: %v", left, err)
			default:
				for _, part := range []string{"object o", "chunk 0", "3 fragments", "disk/"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%q is not in: %v", part, err)
					}
				}
				if _, err := ns.Stat(ctx, "o"); !errors.Is(err, backend.ErrNotFound) {
					t.Errorf("an object that was not accepted: %v", err)
				}
			}
			b.Settle()
			for number := range b.Disks {
				b.Return(number) // those that failed are asked again
			}
			check(t, b.Work.Survey(ctx))
			check(t, b.Work.Collect(ctx, 0))
			b.Check()
			check(t, ns.Put(ctx, "o", want))
			same(t, ns, "o", want)
		})
	}
}

// A spare disk takes the fragment of one that fails: the object is at full width
// without a repair, no two fragments of a chunk on one disk, and no node has more than x.
func TestSpareDiskTakesTheFragment(t *testing.T) {
	p := albatest.Small(twoOne)
	for name, spares := range map[string]int{"one spare": 1, "two spares": 2} {
		t.Run(name, func(t *testing.T) {
			b := albatest.New(t, 3+spares, p, patient)
			check(t, b.CreateNamespace(ctx, "ns"))
			var rules []*osdtest.Injected
			for number := range uint64(spares) {
				rules = append(rules, b.Faults[number+1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: errDisk}))
			}
			want := data(60_000, 42) // one chunk
			hits := 0
			for i := range 20 { // until each of them was asked
				check(t, b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), want))
				b.Settle() // the spare one may be written to when the put has returned
				for _, r := range rules {
					hits += r.Hits()
				}
				o, err := b.NSM.Get(ctx, 1, fmt.Sprint("o", i), userfn.Consistent)
				check(t, err)
				m, err := manifest.Decode(o.Manifest)
				check(t, err)
				seen := map[uint64]bool{policy.None: true}
				for _, f := range m.Chunks[0].Fragments {
					if seen[f.OSD] || f.OSD <= uint64(spares) {
						t.Errorf("object %d has a fragment on disk %d: %v", i, f.OSD, m.Chunks[0].Fragments)
					}
					seen[f.OSD] = true
				}
				for number := range b.Disks {
					b.Fleet.Disk(number).TryAgain()
				}
			}
			if hits == 0 {
				t.Error("no disk has failed")
			}
			b.Check()
		})
	}
}

// A put that is given up ends, wherever it is: before, between and behind its
// fragments. There is the whole object or none, and no fragment stays behind.
func TestPutsEndWithTheirContext(t *testing.T) {
	const chunks = 3
	p := albatest.Small(twoOne)
	for step := range 3 * chunks {
		t.Run(fmt.Sprint("fragment ", step), func(t *testing.T) {
			b := albatest.New(t, 3, p, patient)
			check(t, b.CreateNamespace(ctx, "ns"))
			ns := b.Namespace("ns")
			number, skip := uint64(1+step%3), step/3
			door := gate.New()
			rule := b.Faults[number].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door, Skip: skip, Count: 1})
			want := data(chunks*int(p.ChunkSize), 43)
			short, cancel := context.WithCancel(ctx)
			put := make(chan error, 1)
			go func() { put <- ns.Put(short, "o", want) }()
			check(t, door.Arrived(ctx, 1))
			cancel()
			if err := <-put; !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
			if _, err := ns.Stat(ctx, "o"); !errors.Is(err, backend.ErrNotFound) {
				t.Errorf("what was given up: %v", err)
			}
			door.Open()
			rule.Remove()
			b.Settle()
			check(t, b.Work.Survey(ctx))
			check(t, b.Work.Collect(ctx, 0))
			b.Check()
			check(t, ns.Put(ctx, "o", want))
			same(t, ns, "o", want)
			if n := verifyFragments(t, b, 1, "o"); n != 3*chunks {
				t.Errorf("put again it has %d fragments", n)
			}
		})
	}
	t.Run("before all", func(t *testing.T) {
		b := open(t, p)
		check(t, b.CreateNamespace(ctx, "ns"))
		short, cancel := context.WithCancel(ctx)
		cancel()
		if err := b.Namespace("ns").Put(short, "o", data(60_000, 43)); !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		for number, f := range b.Faults {
			if n := f.Counted(osdtest.Apply).Calls; n != 0 {
				t.Errorf("disk %d was written to", number)
			}
		}
	})
}

// An object that is deleted or replaced while a fragment of it is late stays so: the
// fragment is entered nowhere, and collected.
func TestLateFragmentOfWhatIsGone(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		t.Run(fmt.Sprint("replaced ", replaced), func(t *testing.T) {
			b := albatest.New(t, 3, albatest.Small(twoOne), func(o *client.Options) { o.Patience = time.Millisecond })
			check(t, b.CreateNamespace(ctx, "ns"))
			ns := b.Namespace("ns")
			door := gate.New()
			rule := b.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door, Count: 2})
			v, err := ns.PutIf(ctx, "o", data(100_000, 44), 0) // more than is inline
			check(t, err)
			check(t, door.Arrived(ctx, 1))
			want := data(100_000, 45)
			if replaced {
				_, err = ns.PutIf(ctx, "o", want, v)
				check(t, err)
			} else {
				check(t, ns.Delete(ctx, []string{"o"}, nil))
			}
			door.Open()
			rule.Remove()
			b.Settle()
			check(t, b.Work.Survey(ctx))
			check(t, b.Work.Collect(ctx, 0))
			check(t, b.Work.Collect(ctx, 0))
			b.Check()
			if replaced {
				same(t, ns, "o", want)
			} else if _, err := ns.Stat(ctx, "o"); !errors.Is(err, backend.ErrNotFound) {
				t.Errorf("it is there again: %v", err)
			}
		})
	}
}

// changed is an OSD under which the memory of a fragment changes, checksums and all,
// before it is written: what it stores is consistent, and not what was encoded.
type changed struct{ osd.OSD }

func (c changed) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	for i := range updates {
		if v := &updates[i].Value; len(v.Data) > 0 {
			v.Data[0] ^= 1
			copy(v.CRCs, osd.AppendCRCs(nil, v.Seed, 0, v.Data))
		}
	}
	return c.OSD.Apply(ctx, asserts, updates)
}

// A fragment that was not written as its manifest says is not entered in it.
func TestFragmentThatChangedIsNotEntered(t *testing.T) {
	b := albatest.New(t, 3, albatest.Small(twoOne), patient)
	check(t, b.CreateNamespace(ctx, "ns"))
	b.Fleet.Disk(2).Attach(changed{b.Disks[2]})
	check(t, b.Fleet.Disk(2).Refresh(ctx))
	want := data(60_000, 46)
	check(t, b.Namespace("ns").Put(ctx, "o", want))
	if n := verifyFragments(t, b, 1, "o"); n != 2 {
		t.Errorf("%d fragments are entered", n)
	}
	b.Fleet.Disk(3).Attach(changed{b.Disks[3]})
	check(t, b.Fleet.Disk(3).Refresh(ctx))
	if err := b.Namespace("ns").Put(ctx, "p", want); !errors.Is(err, backend.ErrCorrupt) {
		t.Errorf("one good fragment of the two that are needed: %v", err)
	}
	same(t, b.Namespace("ns"), "o", want)
}

// What cannot be stored is refused before anything is written, and the error says
// why, and of each disk what keeps it from being written to.
func TestPutsThatCannotBe(t *testing.T) {
	sealed := presets()["4,2 sealed"]
	for name, c := range map[string]struct {
		change func(o *client.Options)
		before func(t *testing.T, b *albatest.Backend)
		size   int
		is     error
		says   []string
	}{
		"full disks": {before: func(t *testing.T, b *albatest.Backend) {
			for number, d := range b.Disks {
				d.SetFull(true)
				check(t, b.Fleet.Disk(number).Refresh(ctx))
			}
		}, is: backend.ErrNoSpace, says: []string{"namespace ns", "preset sealed", "disk/1", "disk/6", "full"}},
		"disks that take no writes": {before: func(t *testing.T, b *albatest.Backend) {
			for number, d := range b.Disks {
				d.SetReadOnly(errDisk)
				check(t, b.Fleet.Disk(number).Refresh(ctx))
			}
		}, is: errDisk, says: []string{"namespace ns", "disk/3", "no writes"}},
		"missing disks": {before: func(t *testing.T, b *albatest.Backend) {
			b.Take(1)
			b.Take(4)
		}, says: []string{"namespace ns", "disk/1", "disk/4", "taken away"}},
		"too large": {size: 64<<20 + 1, says: []string{"object o", "preset sealed"}},
		"no keys":   {change: func(o *client.Options) { o.Key = nil }, is: backend.ErrKey, says: []string{"master key 7"}},
		"another key": {
			change: func(o *client.Options) { o.Key = func(uint64) ([]byte, error) { return nil, errDisk } },
			is:     backend.ErrKey, says: []string{errDisk.Error()},
		},
		"a key that is not proven": {
			change: func(o *client.Options) { o.Prove = func(context.Context, uint64) error { return errDisk } }, is: errDisk,
		},
		"a closed client": {before: func(t *testing.T, b *albatest.Backend) { check(t, b.Close()) }, is: backend.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			b := albatest.New(t, 6, sealed, func(o *client.Options) {
				withKey(o)
				if c.change != nil {
					c.change(o)
				}
			})
			check(t, b.CreateNamespace(ctx, "ns"))
			if c.before != nil {
				c.before(t, b)
			}
			err := b.Namespace("ns").Put(ctx, "o", make([]byte, max(c.size, 60_000)))
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("the error is: %v", err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
			for number, f := range b.Faults {
				if n := f.Counted(osdtest.Apply).Calls; n != 0 {
					t.Errorf("disk %d was written to", number)
				}
			}
		})
	}
}

// A disk that fills up while it is written to is no room, if too few others are left.
func TestDisksThatFillUp(t *testing.T) {
	b := open(t, albatest.Small(twoOne))
	check(t, b.CreateNamespace(ctx, "ns"))
	for number := range uint64(2) {
		b.Faults[number+1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: osd.ErrFull, Count: 1})
	}
	err := b.Namespace("ns").Put(ctx, "o", data(60_000, 47))
	if !errors.Is(err, backend.ErrNoSpace) || !strings.Contains(err.Error(), "disk/") {
		t.Errorf("the error is: %v", err)
	}
}

// A disk that was replaced behind the client's back is refused by the manager: the
// client brings its disks up to date, and the put succeeds on those that are there.
func TestPutOnReplacedDisk(t *testing.T) {
	p := albatest.Small(twoOne)
	refreshed := 0
	var b *albatest.Backend
	b = albatest.New(t, 3, p, func(o *client.Options) {
		o.Refresh = func(context.Context) error {
			refreshed++
			b.Fleet.Remove(2)
			return nil
		}
	})
	check(t, b.CreateNamespace(ctx, "ns"))
	was, old := b.Fleet.Disk(2), b.Faults[2]
	number := b.Replace(2)
	b.Fleet.Add(2, was.UUID, "node", was.Place).Attach(old) // still there to the client
	check(t, b.Fleet.Disk(2).Refresh(ctx))
	want := data(60_000, 48)
	for i := range 10 { // until it is chosen
		check(t, b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), want))
		same(t, b.Namespace("ns"), fmt.Sprint("o", i), want)
	}
	if refreshed != 1 || b.Stats().Retries != 1 {
		t.Errorf("brought up to date %d times, begun again %d times", refreshed, b.Stats().Retries)
	}
	if info, err := b.Disks[number].Range(ctx, nil, nil, 100); err != nil || len(info) == 0 {
		t.Errorf("the new disk has %d fragments, %v", len(info), err)
	}
}

// fewNames is a manager that takes no more than a few bytes of names in a call of
// delete, as if the objects had too many fragments.
type fewNames struct {
	*nsmtest.Store
	refused int
}

func (s *fewNames) Call(ctx context.Context, name string, version uint32, arg []byte) ([]byte, error) {
	if name == "nsm.delete" && len(arg) > 60 {
		s.refused++
		return nil, nsm.ErrInvalid
	}
	return s.Store.Call(ctx, name, version, arg)
}

// Objects of more fragments than the manager takes in one call are deleted in several.
func TestDeleteOfManyFragments(t *testing.T) {
	var manager *fewNames
	var b *albatest.Backend
	b = albatest.New(t, 3, albatest.Small(twoOne), func(o *client.Options) {
		o.Host = func(uint64) (*nsm.Client, error) {
			manager = cmp.Or(manager, &fewNames{Store: b.States[1]})
			return nsm.NewClient(manager, manager), nil
		}
	})
	check(t, b.CreateNamespace(ctx, "ns"))
	ns := b.Namespace("ns")
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprint("o", i))
		check(t, ns.Put(ctx, names[i], data(20_000, uint64(i))))
	}
	check(t, ns.Delete(ctx, names, nil))
	if manager.refused == 0 {
		t.Error("all were deleted in one call")
	}
	for _, name := range names {
		if _, err := ns.Stat(ctx, name); !errors.Is(err, backend.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	check(t, b.Work.Survey(ctx))
	b.Check()
}

// A namespace whose name was given to another is found again: what is put and read
// is the new one's.
func TestNameOfADeletedNamespace(t *testing.T) {
	o := withObject(t, albatest.Small(twoOne), 60_000)
	other := o.another(t)
	same(t, other.Namespace("ns"), "o", o.want)
	check(t, o.DeleteNamespace(ctx, "ns"))
	if err := other.Namespace("ns").Put(ctx, "p", o.want); !errors.Is(err, backend.ErrNamespaceNotFound) {
		t.Errorf("put into what is gone: %v", err)
	}
	check(t, o.CreateNamespace(ctx, "ns"))
	want := data(50_000, 49)
	check(t, other.Namespace("ns").Put(ctx, "o", want))
	same(t, other.Namespace("ns"), "o", want)
	same(t, o.Namespace("ns"), "o", want)
}

// Close waits for late fragments of disks that answer, and no longer than its bound
// for one that hangs. What comes after it is refused.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := albatest.New(t, 3, albatest.Small(twoOne), func(o *client.Options) { o.Patience = time.Millisecond })
		check(t, b.CreateNamespace(ctx, "ns"))
		door := gate.New()
		rule := b.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door})
		want := data(60_000, 50)
		check(t, b.Namespace("ns").Put(ctx, "o", want))
		begun := time.Now()
		check(t, b.Close())
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		p := make([]byte, 10)
		_, err := b.Namespace("ns").Get(ctx, "o", p, 0)
		_, _, usage := b.Usage(ctx)
		_, list := b.ListNamespaces(ctx)
		for what, err := range map[string]error{
			"put": b.Namespace("ns").Put(ctx, "p", want), "get": err, "usage": usage, "list": list,
			"create": b.CreateNamespace(ctx, "n"), "delete": b.DeleteNamespace(ctx, "ns"),
		} {
			if !errors.Is(err, backend.ErrClosed) {
				t.Errorf("%s: %v", what, err)
			}
		}
		rule.Remove()
		door.Open()
		synctest.Wait()
	})
}
