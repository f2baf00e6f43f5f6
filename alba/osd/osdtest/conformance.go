package osdtest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/osd"

	"github.com/google/uuid"
)

// Run is the conformance suite. open returns a new, empty OSD for each test,
// with room for 256 MiB of values, and closes it with t.Cleanup if it must be
// closed.
func Run(t *testing.T, open func(t *testing.T) osd.OSD) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, osd.OSD)
	}{
		{"ID", id},
		{"Ranges", ranges},
		{"RangesOutside", rangesOutside},
		{"Overwrite", overwrite},
		{"LastUpdateCounts", lastUpdate},
		{"Asserts", asserts},
		{"AssertsSeeWhatWasBefore", assertsBefore},
		{"AssertsEpoch", assertsEpoch},
		{"Bounds", bounds},
		{"Largest", largest},
		{"BadCRC", badCRC},
		{"Stat", stat},
		{"Range", keyRange},
		{"Verify", verify},
		{"Usage", usage},
		{"BuffersAreTheCallers", buffers},
		{"Cancelled", cancelled},
		{"OneWinner", oneWinner},
		{"ReadersSeeWholeValues", wholeValues},
		{"AppliesAreWhole", wholeApplies},
		{"Model", model},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

var ctx = context.Background()

// Data returns n bytes that differ from place to place and by seed.
func Data(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b[:n]
}

// Put returns the update that puts data under a key, with good checksums.
func Put(key string, data []byte, seed, epoch uint64) osd.Update {
	return osd.Update{Key: []byte(key), Value: osd.Value{Data: data, CRCs: osd.AppendCRCs(nil, seed, 0, data), Seed: seed, Epoch: epoch}}
}

// Delete returns the update that deletes a key.
func Delete(key string) osd.Update { return osd.Update{Key: []byte(key), Delete: true} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got %v, want %v", what, err, target)
	}
}

// apply makes updates that must succeed.
func apply(t *testing.T, o osd.OSD, updates ...osd.Update) {
	t.Helper()
	must(t, o.Apply(ctx, nil, updates))
}

// read returns a range and its checksums.
func read(o osd.OSD, key string, off, n int) ([]byte, []uint32, error) {
	p, crcs := make([]byte, n), make([]uint32, osd.Blocks(n))
	err := o.Read(ctx, []byte(key), uint32(off), p, crcs)
	return p, crcs, err
}

// holds checks that a key has a value: through Stat, Read, and the checksums
// that Read gives.
func holds(t *testing.T, o osd.OSD, key string, data []byte, seed, epoch uint64) {
	t.Helper()
	info := statOne(t, o, key)
	if !info.Found || int(info.Size) != len(data) || info.Epoch != epoch || string(info.Key) != key {
		t.Fatalf("stat of %q: %+v, want %d bytes of epoch %d", key, info, len(data), epoch)
	}
	p, crcs, err := read(o, key, 0, len(data))
	if err != nil || !bytes.Equal(p, data) || !slices.Equal(crcs, osd.AppendCRCs(nil, seed, 0, data)) {
		t.Fatalf("read of %q, %d bytes: %v; bytes are equal: %v; CRCs %08x", key, len(data), err, bytes.Equal(p, data), crcs)
	}
}

func statOne(t *testing.T, o osd.OSD, key string) osd.Info {
	t.Helper()
	infos, err := o.Stat(ctx, [][]byte{[]byte(key)})
	if err != nil || len(infos) != 1 {
		t.Fatalf("stat of %q: %v, %v", key, infos, err)
	}
	return infos[0]
}

func absent(t *testing.T, o osd.OSD, key string) {
	t.Helper()
	if info := statOne(t, o, key); info.Found || string(info.Key) != key {
		t.Fatalf("%q should be absent; stat gives %+v", key, info)
	}
	_, _, err := read(o, key, 0, 0)
	want(t, "read of an absent key", err, osd.ErrNotFound)
}

func id(t *testing.T, o osd.OSD) {
	first := o.ID()
	apply(t, o, Put("k", Data(10, 1), 1, 1))
	if first == (uuid.UUID{}) || o.ID() != first {
		t.Errorf("id is %v, then %v", first, o.ID())
	}
}

// sizes are those around which codes err.
var sizes = []int{0, 1, 7, 8, 511, 512, 4095, 4096, 4097, 8191, 8192, 12288 + 100, 65536, 1<<20 + 5}

func ranges(t *testing.T, o osd.OSD) {
	for i, n := range sizes {
		key := string([]byte{'s', byte(i)})
		data := Data(n, uint64(n)+1)
		apply(t, o, Put(key, data, uint64(i), uint64(n)))
		holds(t, o, key, data, uint64(i), uint64(n))
		crcs := osd.AppendCRCs(nil, uint64(i), 0, data)
		var offs []int
		for off := 0; off <= n; off += max(osd.BlockSize, n/osd.BlockSize/5*osd.BlockSize) {
			offs = append(offs, off)
		}
		if last := n / osd.BlockSize * osd.BlockSize; last > 0 {
			offs = append(offs, last-osd.BlockSize, last)
		}
		for _, off := range offs {
			for _, end := range []int{off, off + osd.BlockSize, off + 3*osd.BlockSize, n} {
				if end > n {
					continue
				}
				first := off / osd.BlockSize
				p, got, err := read(o, key, off, end-off)
				if err != nil || !bytes.Equal(p, data[off:end]) || !slices.Equal(got, crcs[first:first+len(got)]) {
					t.Fatalf("[%d, %d) of %d bytes: %v; bytes are equal: %v; CRCs are %08x", off, end, n, err, bytes.Equal(p, data[off:end]), got)
				}
			}
		}
	}
}

func rangesOutside(t *testing.T, o osd.OSD) {
	const n = 2*osd.BlockSize + 100
	apply(t, o, Put("k", Data(n, 1), 1, 1), Put("empty", nil, 1, 1))
	for _, c := range []struct {
		key          string
		off, n, crcs int
	}{
		{"k", 0, n + 1, 3},
		{"k", 0, 3 * osd.BlockSize, 3},
		{"k", osd.BlockSize, n, 3},
		{"k", 3 * osd.BlockSize, 0, 0},
		{"k", 3 * osd.BlockSize, osd.BlockSize, 1},
		{"k", 1, osd.BlockSize, 1},     // off is not aligned
		{"k", n, 0, 0},                 // nor here
		{"k", 0, 100, 1},               // nor the end
		{"k", osd.BlockSize, 4000, 1},  // nor here
		{"k", 0, osd.BlockSize, 2},     // CRCs too many
		{"k", 0, 2 * osd.BlockSize, 1}, // too few
		{"k", 0, n, 0},
		{"k", 1<<32 - osd.BlockSize, osd.BlockSize, 1},
		{"empty", 0, 1, 1},
		{"empty", 0, osd.BlockSize, 1},
		{"empty", osd.BlockSize, 0, 0},
		{"empty", 0, 0, 1},
	} {
		err := o.Read(ctx, []byte(c.key), uint32(c.off), make([]byte, c.n), make([]uint32, c.crcs))
		if !errors.Is(err, osd.ErrInvalid) {
			t.Errorf("%d bytes and %d CRCs at %d of %q: got %v", c.n, c.crcs, c.off, c.key, err)
		}
	}
	want(t, "read of an absent key", o.Read(ctx, []byte("absent"), 0, make([]byte, 1), make([]uint32, 1)), osd.ErrNotFound)
	want(t, "read of no key", o.Read(ctx, nil, 0, nil, nil), osd.ErrInvalid)
	want(t, "read of a long key", o.Read(ctx, make([]byte, osd.KeyMax+1), 0, nil, nil), osd.ErrInvalid)
}

func overwrite(t *testing.T, o osd.OSD) {
	for i, n := range []int{5000, 100, 0, 70000, 70000, 4096, 8192} {
		data := Data(n, uint64(i))
		apply(t, o, Put("k", data, uint64(100+i), uint64(200+i)))
		holds(t, o, "k", data, uint64(100+i), uint64(200+i))
	}
	apply(t, o, Delete("k"))
	absent(t, o, "k")
	apply(t, o, Delete("k"), Delete("never"))
	absent(t, o, "never")
	apply(t, o, Put("k", []byte("again"), 1, 2))
	holds(t, o, "k", []byte("again"), 1, 2)
	must(t, o.Apply(ctx, nil, nil))
	// Seeds and epochs are any number.
	const top = 1<<64 - 1
	apply(t, o, Put("k", []byte("top"), top, top))
	holds(t, o, "k", []byte("top"), top, top)
}

func lastUpdate(t *testing.T, o osd.OSD) {
	a, b := Data(5000, 1), Data(300, 2)
	apply(t, o, Put("1", a, 1, 1), Put("1", b, 2, 2))
	holds(t, o, "1", b, 2, 2)
	apply(t, o, Put("1", a, 3, 3), Delete("1"))
	absent(t, o, "1")
	apply(t, o, Delete("1"), Put("2", b, 1, 1), Put("1", a, 4, 4))
	holds(t, o, "1", a, 4, 4)
	apply(t, o, Put("1", b, 5, 5), Delete("1"), Put("1", a, 6, 6), Put("3", nil, 1, 1))
	holds(t, o, "1", a, 6, 6)
	holds(t, o, "2", b, 1, 1)
	holds(t, o, "3", nil, 1, 1)
}

// verify: nothing is bad, and every value is looked at once.
func verify(t *testing.T, o osd.OSD) {
	if bad, next, err := o.Verify(ctx, nil, 10); err != nil || len(bad) != 0 || next != nil {
		t.Errorf("of nothing: %v, %q, %v", bad, next, err)
	}
	const n = 25
	for i := range n {
		apply(t, o, Put(string([]byte{'k', byte(i)}), Data(i*1000, uint64(i)), uint64(i), 1))
	}
	for _, limit := range []int{1, 4, 24, 25, 26, 1000} {
		var after []byte
		calls := 0
		for {
			bad, next, err := o.Verify(ctx, after, limit)
			if err != nil || len(bad) != 0 {
				t.Fatalf("%v, %v", bad, err)
			}
			calls++
			if next == nil {
				break
			}
			if bytes.Compare(next, after) <= 0 || calls > n+1 {
				t.Fatalf("limit %d: call %d goes from %q to %q", limit, calls, after, next)
			}
			after = next
		}
		if calls < (n+limit-1)/limit {
			t.Errorf("limit %d: %d calls for %d values", limit, calls, n)
		}
	}
	if bad, next, err := o.Verify(ctx, []byte("l"), 10); err != nil || len(bad) != 0 || next != nil {
		t.Errorf("behind the last: %v, %q, %v", bad, next, err)
	}
}

func usage(t *testing.T, o osd.OSD) {
	before, err := o.Usage(ctx)
	must(t, err)
	if before.Keys != 0 || before.Full || before.ReadOnly != nil || before.Used > before.Capacity {
		t.Errorf("empty: %+v", before)
	}
	const n = 1 << 20
	apply(t, o, Put("a", Data(n, 1), 1, 1), Put("b", nil, 1, 1), Delete("c"))
	apply(t, o, Put("a", Data(n, 2), 1, 1))
	after, err := o.Usage(ctx)
	must(t, err)
	if after.Keys != 2 || after.Used < before.Used+n || after.Full || after.Used > after.Capacity {
		t.Errorf("was %+v, is %+v", before, after)
	}
	apply(t, o, Delete("a"))
	if after, err = o.Usage(ctx); err != nil || after.Keys != 1 {
		t.Errorf("%+v, %v", after, err)
	}
}

// buffers: what is passed in is not kept, what is returned is the caller's.
func buffers(t *testing.T, o osd.OSD) {
	data := Data(3*osd.BlockSize+9, 1)
	u := Put("key", bytes.Clone(data), 7, 8)
	a := osd.Assert{Kind: osd.Absent, Key: []byte("key")}
	must(t, o.Apply(ctx, []osd.Assert{a}, []osd.Update{u}))
	clear(u.Key)
	clear(u.Value.Data)
	clear(u.Value.CRCs)
	clear(a.Key)
	holds(t, o, "key", data, 7, 8)

	p, crcs, err := read(o, "key", 0, len(data))
	must(t, err)
	clear(p)
	clear(crcs)
	infos, err := o.Range(ctx, nil, nil, 10)
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	clear(infos[0].Key)
	asked, none := []byte("key"), []byte("none")
	infos, err = o.Stat(ctx, [][]byte{asked, none})
	must(t, err)
	clear(infos[0].Key)
	clear(infos[1].Key)
	if string(asked) != "key" || string(none) != "none" {
		t.Error("stat returned the caller's own slice")
	}
	must(t, o.Apply(ctx, nil, []osd.Update{Put("later", nil, 1, 1)}))
	_, next, err := o.Verify(ctx, nil, 1)
	must(t, err)
	clear(next)
	holds(t, o, "key", data, 7, 8)
	infos, err = o.Range(ctx, nil, nil, 10)
	if err != nil || len(infos) != 2 || string(infos[0].Key) != "key" || string(infos[1].Key) != "later" {
		t.Errorf("%+v, %v", infos, err)
	}
}

// cancelled: a call may end with its context, but what it was given is not
// used after it has returned.
func cancelled(t *testing.T, o osd.OSD) {
	c, cancel := context.WithCancel(ctx)
	cancel()
	for i := range 20 {
		data := Data(100_000, uint64(i))
		key := string([]byte{'c', byte(i)})
		u := Put(key, bytes.Clone(data), 1, 1)
		err := o.Apply(c, nil, []osd.Update{u})
		clear(u.Value.Data)
		clear(u.Value.CRCs)
		if info := statOne(t, o, key); info.Found || err == nil {
			holds(t, o, key, data, 1, 1)
		}
	}
	apply(t, o, Put("k", []byte("v"), 1, 1))
	p, crcs := make([]byte, 1), make([]uint32, 1)
	if err := o.Read(c, []byte("k"), 0, p, crcs); err != nil {
		want(t, "read", err, context.Canceled)
	} else if p[0] != 'v' {
		t.Error("read gave nothing")
	}
	if _, err := o.Stat(c, nil); err != nil {
		want(t, "stat", err, context.Canceled)
	}
	if _, err := o.Range(c, nil, nil, 1); err != nil {
		want(t, "range", err, context.Canceled)
	}
	if _, _, err := o.Verify(c, nil, 1); err != nil {
		want(t, "verify", err, context.Canceled)
	}
	holds(t, o, "k", []byte("v"), 1, 1)
}
