package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/alba/albatest"
	"openvstorage/alba/client"
	"openvstorage/alba/manifest"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/osd/osdtest"
	"openvstorage/alba/policy"
	"openvstorage/internal/gate"
)

// queued is an OSD as ours is: an Apply is checked when it comes, and waits with
// the caller's memory; the bytes are taken from there when its turn comes.
type queued struct {
	osd.OSD
	hold func(k manifest.Key) *gate.Gate // nil: it does not wait
}

func (q *queued) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	for i := range updates {
		u := &updates[i]
		k, err := manifest.ParseKey(u.Key)
		if err != nil || u.Delete {
			continue
		}
		door := q.hold(k)
		if door == nil {
			continue
		}
		if err := door.Hold(ctx); err != nil {
			return err
		}
		u.Value.CRCs = osd.AppendCRCs(nil, u.Value.Seed, 0, u.Value.Data) // what lies there now is what the disk gets
	}
	return q.OSD.Apply(ctx, asserts, updates)
}

// verifyFragments reads every fragment that an object names back, and compares it
// with the manifest. It returns how many there are.
func verifyFragments(t *testing.T, b *albatest.Backend, ns uint64, name string) (present int) {
	t.Helper()
	o, err := b.NSM.Get(ctx, ns, name, userfn.Consistent)
	check(t, err)
	m, err := manifest.Decode(o.Manifest)
	check(t, err)
	for i := range m.Chunks {
		for j, f := range m.Chunks[i].Fragments {
			if f.OSD == policy.None {
				continue
			}
			present++
			data, crcs := make([]byte, f.Length), make([]uint32, osd.Blocks(int(f.Length)))
			check(t, b.Disks[f.OSD].Read(ctx, m.Key(i, j).Append(nil), 0, data, crcs))
			want := osd.AppendCRCs(nil, manifest.Seed(m.Object, uint32(i), uint32(j)), 0, data)
			if osd.TableCRC(want) != f.CRC || fmt.Sprint(want) != fmt.Sprint(crcs) {
				t.Errorf("chunk %d, fragment %d on disk %d is not what the manifest says", i, j, f.OSD)
			}
		}
	}
	return present
}

// A fragment that is late is written from the memory that it was made in, though
// many chunks are encoded meanwhile.
func TestLateFragmentKeepsItsMemory(t *testing.T) {
	p := albatest.Small(twoOne)
	b := albatest.New(t, 3, p, func(o *client.Options) { o.Patience = 20 * time.Millisecond })
	check(t, b.CreateNamespace(ctx, "ns"))
	door := gate.New()
	b.Fleet.Disk(2).Attach(&queued{b.Disks[2], func(k manifest.Key) *gate.Gate {
		if k.Chunk == 0 {
			return door
		}
		return nil
	}})
	check(t, b.Fleet.Disk(2).Refresh(ctx))
	want := data(9*int(p.ChunkSize), 11)
	check(t, b.Namespace("ns").Put(ctx, "o", want))
	check(t, door.Arrived(ctx, 1))
	door.Open()
	b.Settle()
	verifyFragments(t, b, 1, "o")
	check(t, b.Work.Survey(ctx)) // the disk was left out while it was late
	if n := verifyFragments(t, b, 1, "o"); n != 9*3 {
		t.Errorf("the object has %d fragments, not %d", n, 9*3)
	}
	for n := range uint64(3) {
		b.Take(1 + n)
		same(t, b.Namespace("ns"), "o", want)
		b.Fleet.Disk(1 + n).Attach(b.Disks[1+n])
	}
}

// Whatever is late, of whatever chunk and on whatever disk, and in whatever
// order it ends.
func TestLateFragmentsModel(t *testing.T) {
	p := albatest.Small(policy.Policy{K: 2, M: 2, C: 2, X: 8})
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 9))
		b := albatest.New(t, 6, p, func(o *client.Options) { o.Patience, o.Uploads = time.Nanosecond, 2 })
		check(t, b.CreateNamespace(ctx, "ns"))
		doors := make(map[uint64]*gate.Gate)
		for n := range b.Disks {
			var door *gate.Gate
			if n <= 2 { // the other four make c, whoever is late
				door = gate.New()
				doors[n] = door
			}
			late := r.Uint32()
			b.Fleet.Disk(n).Attach(&queued{b.Disks[n], func(k manifest.Key) *gate.Gate {
				if late>>(k.Chunk%32)&1 == 0 {
					return nil
				}
				return door
			}})
			check(t, b.Fleet.Disk(n).Refresh(ctx))
		}
		want := make([][]byte, 3)
		for i := range want {
			want[i] = data((5+r.IntN(8))*int(p.ChunkSize), seed)
			check(t, b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), want[i]))
		}
		for _, n := range r.Perm(2) {
			doors[uint64(1+n)].Open()
		}
		b.Settle()
		for i := range want {
			verifyFragments(t, b, 1, fmt.Sprint("o", i))
			same(t, b.Namespace("ns"), fmt.Sprint("o", i), want[i])
		}
		check(t, b.Work.Survey(ctx))
	}
}

// A disk that hangs takes no more memory than late fragments may keep, and no
// upload waits for it: it gets nothing more until it has answered.
func TestHangingDiskTakesNoMemory(t *testing.T) {
	const chunk = 64 << 10
	p := albatest.Small(twoOne)
	b := albatest.New(t, 3, p, func(o *client.Options) { o.Patience, o.Uploads, o.LateBytes = 10*time.Millisecond, 2, 6*chunk })
	check(t, b.CreateNamespace(ctx, "ns"))
	door := gate.New()
	rule := b.Faults[2].Add(osdtest.Rule{Ops: []osdtest.Op{osdtest.Apply}, Gate: door})
	want := data(3*chunk, 12)
	for i := range 20 {
		check(t, b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), want))
		if n := b.Stats().LateBytes; n > 6*chunk {
			t.Fatalf("late fragments keep %d bytes", n)
		}
	}
	if b.Stats().LateBytes == 0 {
		t.Error("nothing was late")
	}
	door.Open()
	rule.Remove()
	b.Settle()
	if n := b.Stats().LateBytes; n != 0 {
		t.Errorf("with nothing late, %d bytes are kept", n)
	}
	check(t, b.Work.Survey(ctx))
	for i := range 20 {
		if n := verifyFragments(t, b, 1, fmt.Sprint("o", i)); n != 9 {
			t.Errorf("object %d has %d fragments", i, n)
		}
	}
	b.Check()
}

// An upload that waits for memory ends with its context, and leaves nothing behind.
func TestWaitForMemoryEnds(t *testing.T) {
	p := albatest.Small(policy.Policy{K: 1, M: 1, C: 1, X: 8})
	b := albatest.New(t, 2, p, func(o *client.Options) { o.Patience, o.Uploads, o.LateBytes = time.Nanosecond, 1, 1 })
	check(t, b.CreateNamespace(ctx, "ns"))
	door := gate.New()
	// Every chunk has one late fragment, on the one disk or the other: with the
	// coder's two and one that is lent, the fourth has no memory.
	b.Fleet.Disk(1).Attach(&queued{b.Disks[1], func(k manifest.Key) *gate.Gate {
		if k.Chunk%2 == 0 {
			return door
		}
		return nil
	}})
	b.Fleet.Disk(2).Attach(&queued{b.Disks[2], func(k manifest.Key) *gate.Gate {
		if k.Chunk%2 == 1 {
			return door
		}
		return nil
	}})
	check(t, b.Fleet.Disk(1).Refresh(ctx))
	check(t, b.Fleet.Disk(2).Refresh(ctx))
	short, cancel := context.WithCancel(ctx)
	put := make(chan error, 1)
	go func() { put <- b.Namespace("ns").Put(short, "o", data(8*int(p.ChunkSize), 13)) }()
	check(t, door.Arrived(ctx, 3))
	cancel()
	if err := <-put; err != context.Canceled {
		t.Errorf("put: %v", err)
	}
	door.Open()
	b.Settle()
	want := data(8*int(p.ChunkSize), 14)
	check(t, b.Namespace("ns").Put(ctx, "p", want))
	same(t, b.Namespace("ns"), "p", want)
}

// A write that a fragment was taken from still reads its memory: that is not used again before
// the write has ended, however many puts come meanwhile.
func TestMovedFragmentKeepsItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := albatest.Small(policy.Policy{K: 2, M: 1, C: 3, X: 12})
		b := albatest.New(t, 5, p, func(o *client.Options) { o.Uploads = 1 })
		check(t, b.CreateNamespace(ctx, "ns"))
		door := gate.New()
		late := &reader{OSD: b.Faults[2], door: door}
		b.Fleet.Disk(2).Attach(late)
		check(t, b.Fleet.Disk(2).Refresh(ctx))
		for i := range 30 {
			want := data(100_000, uint64(i))
			check(t, b.Namespace("ns").Put(ctx, fmt.Sprint("o", i), want))
			same(t, b.Namespace("ns"), fmt.Sprint("o", i), want)
		}
		if b.Stats().Moved == 0 {
			t.Error("nothing was moved")
		}
		door.Open()
		b.Settle()
		if late.changed.Load() != 0 || late.whole.Load() == 0 {
			t.Errorf("of what the late disk got %d were changed under it, %d were not", late.changed.Load(), late.whole.Load())
		}
		time.Sleep(time.Minute) // of the bubble: what was hedged comes back
	})
}

// reader is an OSD that hangs with what it has begun to write, and looks whether that is still
// what it was.
type reader struct {
	osd.OSD
	door           *gate.Gate
	changed, whole atomic.Int32
}

func (r *reader) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	if err := r.door.Hold(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for _, u := range updates {
		if u.Delete || slices.Equal(osd.AppendCRCs(nil, u.Value.Seed, 0, u.Value.Data), u.Value.CRCs) {
			r.whole.Add(1)
		} else {
			r.changed.Add(1)
		}
	}
	return r.OSD.Apply(ctx, asserts, updates)
}
