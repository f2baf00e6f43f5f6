package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/backend"
	"openvstorage/backend/backendtest"
	"openvstorage/internal/gate"
)

var ctx = context.Background()

var (
	twoOne  = policy.Policy{K: 2, M: 1, C: 2, X: 3}
	fourTwo = policy.Policy{K: 4, M: 2, C: 5, X: 6}
	mirror  = policy.Policy{K: 1, M: 1, C: 1, X: 2}
)

// data returns n bytes, half of which can be compressed.
func data(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		switch i >> 12 % 4 {
		case 0: // zeros
		case 1:
			b[i] = byte(i>>6) ^ byte(seed)
		default:
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read returns a whole object.
func read(t *testing.T, ns backend.Namespace, name string, size int) []byte {
	t.Helper()
	p := make([]byte, size+1)
	n, err := ns.Get(ctx, name, p, 0)
	if err != io.EOF {
		t.Fatalf("get %s: %d, %v", name, n, err)
	}
	return p[:n]
}

func same(t *testing.T, ns backend.Namespace, name string, want []byte) {
	t.Helper()
	if !bytes.Equal(read(t, ns, name, len(want)), want) {
		t.Fatalf("object %s has other bytes", name)
	}
}

func presets() map[string]preset.Preset {
	sealed := albatest.Small(fourTwo)
	sealed.Name, sealed.Scheme.Cipher, sealed.Scheme.Key = "sealed", preset.CipherAES256GCM, 7
	raw := albatest.Small(twoOne)
	raw.Name, raw.Scheme.Compression = "raw", preset.CompressionNone
	return map[string]preset.Preset{
		"2,1": albatest.Small(twoOne), "4,2 sealed": sealed, "1,1": albatest.Small(mirror), "2,1 raw": raw, "default": preset.Default(3),
	}
}

func withKey(o *client.Options) {
	o.Key = func(n uint64) ([]byte, error) {
		if n != 7 {
			return nil, fmt.Errorf("no key %d", n)
		}
		return bytes.Repeat([]byte{7}, 32), nil
	}
}

func open(t *testing.T, p preset.Preset) *albatest.Backend {
	return albatest.New(t, p.Policies[0].Width(), p, withKey)
}

func TestConformance(t *testing.T) {
	for name, p := range presets() {
		t.Run(name, func(t *testing.T) {
			backendtest.TestStore(t, func(t *testing.T) backend.Store {
				b := open(t, p)
				t.Cleanup(func() {
					check(t, b.Work.Survey(ctx))
					check(t, b.Work.Collect(ctx, 0))
					b.Check()
				})
				return b
			})
		})
	}
}

// Any m disks may be away, and any m may be bad: every range reads the same.
func TestDegraded(t *testing.T) {
	for name, p := range presets() {
		t.Run(name, func(t *testing.T) {
			b := open(t, p)
			check(t, b.CreateNamespace(ctx, "ns"))
			ns := b.Namespace("ns")
			want := data(200_000, 1)
			check(t, ns.Put(ctx, "o", want))
			width, m := p.Policies[0].Width(), int(p.Policies[0].M)
			for first := range width {
				for i := range m {
					b.Take(uint64(1 + (first+i)%width))
				}
				for range 20 {
					off := rand.IntN(len(want))
					n := 1 + rand.IntN(min(len(want)-off, 70_000))
					got := make([]byte, n)
					if _, err := ns.Get(ctx, "o", got, int64(off)); err != nil || !bytes.Equal(got, want[off:off+n]) {
						t.Fatalf("%d bytes at %d without disks from %d: %v", n, off, 1+first, err)
					}
				}
				b.Take(uint64(1 + (first+m)%width))
				_, err := ns.Get(ctx, "o", make([]byte, len(want)), 0)
				if !errors.Is(err, fleet.ErrMissing) || !strings.Contains(err.Error(), "namespace ns") || !strings.Contains(err.Error(), "disk/") {
					t.Fatalf("with %d disks missing: %v", m+1, err)
				}
				for i := range m + 1 {
					b.Return(uint64(1 + (first+i)%width))
				}
			}
			same(t, ns, "o", want)
		})
	}
}

// A flipped bit anywhere is found, healed from the others, and rewritten.
func TestHeal(t *testing.T) {
	for name, p := range presets() {
		t.Run(name, func(t *testing.T) {
			b := open(t, p)
			check(t, b.CreateNamespace(ctx, "ns"))
			ns := b.Namespace("ns")
			want := data(200_000, 2)
			check(t, ns.Put(ctx, "o", want))
			for number, d := range b.Disks {
				list, err := d.Range(ctx, nil, nil, 100)
				check(t, err)
				for _, info := range list {
					for off := 0; off < int(info.Size); off += 4096 {
						d.Corrupt(info.Key, off+rand.IntN(4096))
					}
				}
				same(t, ns, "o", want)
				check(t, b.Work.Repair(ctx))
				check(t, b.Work.Survey(ctx)) // deletes what was replaced
				b.Check()
				for _, info := range list {
					bad, _, err := d.Verify(ctx, nil, 100)
					if err != nil || len(bad) != 0 {
						// A fragment that no read touches is found by scrub.
						check(t, b.Work.ScrubSome(ctx, 100))
						check(t, b.Work.Repair(ctx))
						check(t, b.Work.Survey(ctx))
						if bad, _, err = d.Verify(ctx, nil, 100); err != nil || len(bad) != 0 {
							t.Fatalf("disk %d, fragment %x: %v, %v", number, info.Key, bad, err)
						}
					}
				}
			}
			same(t, ns, "o", want)
		})
	}
}

// Accepted with one disk away, brought to full width when it is back, or when
// another is in its place.
func TestNarrow(t *testing.T) {
	b := open(t, albatest.Small(twoOne))
	check(t, b.CreateNamespace(ctx, "ns"))
	ns := b.Namespace("ns")
	narrow := func(want int) {
		t.Helper()
		list, err := ns.(backend.Widths).Narrow(ctx, []string{"a", "b", "absent"})
		check(t, err)
		if len(list) != want {
			t.Fatalf("narrow: %v", list)
		}
	}
	check(t, ns.Put(ctx, "a", data(200_000, 3)))
	narrow(0)
	b.Take(2)
	check(t, ns.Put(ctx, "b", data(300_000, 4)))
	narrow(1)
	check(t, b.Work.Survey(ctx))
	narrow(1)
	if b.Work.Narrow() != 1 {
		t.Errorf("%d objects below full width", b.Work.Narrow())
	}
	b.Return(2)
	check(t, b.Work.Survey(ctx))
	narrow(0)
	b.Check()

	b.Take(3)
	number := b.Replace(3)
	same(t, ns, "a", data(200_000, 3))
	check(t, b.Work.Survey(ctx))
	narrow(0)
	check(t, b.Work.Survey(ctx))
	b.Check()
	if list, err := b.Disks[number].Range(ctx, nil, nil, 1000); err != nil || len(list) == 0 {
		t.Errorf("the new disk has %d fragments, %v", len(list), err)
	}
	b.Take(1)
	same(t, ns, "a", data(200_000, 3))
	same(t, ns, "b", data(300_000, 4))
}

// A disk that hangs delays a read by its patience, and a put by the client's:
// what it had is entered late.
func TestSlowDisk(t *testing.T) {
	b := albatest.New(t, 3, albatest.Small(twoOne), func(o *client.Options) { o.Patience = time.Millisecond })
	check(t, b.CreateNamespace(ctx, "ns"))
	ns := b.Namespace("ns")
	want := data(200_000, 5)
	check(t, ns.Put(ctx, "a", want))
	b.Settle()                // what came late is where it should be, too
	for i := range b.Faults { // which of them is read depends on how quick they were
		door := gate.New()
		rule := b.Faults[i].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Read}, Gate: door})
		same(t, ns, "a", want)
		door.Open()
		rule.Remove()
	}
	if b.Stats().Hedged == 0 {
		t.Error("no read was hedged")
	}

	door := gate.New()
	rule := b.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door})
	check(t, ns.Put(ctx, "b", want))
	list, err := ns.(backend.Widths).Narrow(ctx, []string{"b"})
	if err != nil || len(list) != 1 {
		t.Fatalf("narrow: %v, %v", list, err)
	}
	door.Open()
	rule.Remove()
	check(t, b.Close()) // waits for what is late
	if b.Stats().Late == 0 {
		t.Error("nothing came late")
	}
	check(t, b.Work.Survey(ctx))
	b.Check()
	o, err := b.NSM.Degraded(ctx, 1, 10, userfn.Consistent)
	if err != nil || len(o) != 0 {
		t.Errorf("below full width: %v, %v", o, err)
	}
}

// A put whose fragment cannot be written anywhere else is accepted at c; below
// that it fails, and leaves nothing for good.
func TestFailedPut(t *testing.T) {
	b := open(t, albatest.Small(twoOne))
	check(t, b.CreateNamespace(ctx, "ns"))
	ns := b.Namespace("ns")
	broken := errors.New("broken")
	one := b.Faults[1].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: broken})
	check(t, ns.Put(ctx, "a", data(100_000, 6)))
	two := b.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Err: broken, After: true})
	b.Return(1)
	if err := ns.Put(ctx, "b", data(100_000, 7)); !errors.Is(err, broken) {
		t.Fatalf("put with two bad disks: %v", err)
	}
	if _, err := ns.Stat(ctx, "b"); !errors.Is(err, backend.ErrNotFound) {
		t.Fatalf("after a failed put: %v", err)
	}
	one.Remove()
	two.Remove()
	b.Settle() // of the put that failed, what was under way
	b.Return(1)
	b.Return(2)
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
	if b.Work.Stats().Orphans == 0 {
		t.Error("nothing was collected")
	}
	same(t, ns, "a", data(100_000, 6))
}

// An epoch that is closed while an upload is under way makes it begin again.
func TestEpochCloses(t *testing.T) {
	b := albatest.New(t, 3, albatest.Small(twoOne), func(o *client.Options) { o.EpochAge = time.Hour })
	check(t, b.CreateNamespace(ctx, "ns"))
	ns := b.Namespace("ns")
	check(t, ns.Put(ctx, "a", data(100_000, 8)))
	check(t, b.Work.Collect(ctx, 0))
	check(t, ns.Put(ctx, "b", data(100_000, 9)))
	if b.Stats().Retries != 1 {
		t.Errorf("%d retries", b.Stats().Retries)
	}
	same(t, ns, "a", data(100_000, 8))
	same(t, ns, "b", data(100_000, 9))
	check(t, b.Work.Survey(ctx))
	check(t, b.Work.Collect(ctx, 0))
	check(t, b.Work.Collect(ctx, 0))
	b.Check()
}

// A put that no disk takes, without any having failed, says so.
func TestNoDiskTakesWrites(t *testing.T) {
	b := open(t, albatest.Small(twoOne))
	check(t, b.CreateNamespace(ctx, "ns"))
	for _, d := range b.Fleet.All() {
		d.SetLeaving(true)
	}
	err := b.Namespace("ns").Put(ctx, "a", data(100_000, 6))
	if err == nil || strings.Contains(err.Error(), "%!") {
		t.Errorf("%v", err)
	}
}
