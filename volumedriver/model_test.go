package volumedriver

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"openvstorage/backend/local"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/sco"
	"openvstorage/volumedriver/registry"
	"openvstorage/volumedriver/registry/registrytest"
)

// rig is a host on a crash-model disk: buffer, page store, backend and
// registry all on it, so that one image holds them all.
type rig struct {
	fs   disk.FS
	back *local.Store
	keys *registrytest.Files
	reg  *registry.Registry
	host *Host
}

func openRig(fs disk.FS, change func(*Options)) (r *rig, err error) {
	ctx := context.Background()
	r = &rig{fs: fs}
	for _, d := range []string{"/data", "/data/backend", "/data/registry", "/data/buffer"} {
		if err := fs.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"/", "/data"} {
		if err := fs.SyncDir(d); err != nil {
			return nil, err
		}
	}
	if r.back, err = local.Open(fs, "/data/backend", local.Options{}); err != nil {
		return nil, err
	}
	if r.keys, err = registrytest.Open(fs, "/data/registry"); err != nil {
		return nil, err
	}
	if r.reg, err = registry.Open(ctx, r.keys); err != nil {
		return nil, err
	}
	opt := Options{
		FS: fs, Dir: "/data", WriteBuffer: 64 << 20, MapCache: 1 << 20, Backend: r.back, Registry: r.reg,
		Owner: "test", IdleSeal: time.Hour,
	}
	if os.Getenv("OVS_TEST_LOG") != "" {
		opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if change != nil {
		change(&opt)
	}
	r.host, err = Open(ctx, opt)
	return r, err
}

func (r *rig) close() error {
	if err := r.host.Close(context.Background()); err != nil {
		return err
	}
	if err := r.reg.Close(); err != nil {
		return err
	}
	if err := r.keys.Close(); err != nil {
		return err
	}
	return r.back.Close()
}

// history is the byte model of one vDisk: every operation in order, so that
// the state after any prefix can be rebuilt. One client writes, so the order
// of acknowledgements is the order of seq.
type history struct {
	size    int
	ops     []func(state *modelState)
	flushed int // operations that a flush covers
	// deleted snapshots: deletion is a matter of the catalog, durable at once,
	// and has no place in the order of writing.
	deleted map[string]bool
}

func newHistory(size int) *history { return &history{size: size, deleted: map[string]bool{}} }

type modelState struct {
	data  []byte
	snaps map[string][]byte
}

// after is the state after the first n operations.
func (h *history) after(n int) *modelState {
	s := &modelState{data: make([]byte, h.size), snaps: map[string][]byte{}}
	for _, op := range h.ops[:n] {
		op(s)
	}
	return s
}

// live is how many of a state's snapshots were not deleted later.
func (h *history) live(s *modelState) int {
	n := 0
	for name := range s.snaps {
		if !h.deleted[name] {
			n++
		}
	}
	return n
}

func (h *history) add(op func(*modelState)) { h.ops = append(h.ops, op) }

// addRange records a change of [off, off+n) as one operation a cluster: a
// request may be cut between its entries, but never within a cluster.
func (h *history) addRange(off, n int64, op func(s *modelState, from, to int64)) {
	for at := off; at < off+n; at = (at/4096 + 1) * 4096 {
		from, to := at, min((at/4096+1)*4096, off+n)
		h.add(func(s *modelState) { op(s, from, to) })
	}
}

func readAll(t *testing.T, d Device) []byte {
	t.Helper()
	b := make([]byte, d.Size())
	for off := 0; off < len(b); off += 1 << 20 {
		p := b[off:min(off+1<<20, len(b))]
		if err := d.TryRead(p, int64(off)); err == nil {
			continue
		}
		if err := d.Read(context.Background(), p, int64(off)); err != nil {
			t.Fatalf("read at %d: %v", off, err)
		}
	}
	return b
}

func open(t *testing.T, h *Host, name string) Device {
	t.Helper()
	d, release, err := h.OpenDevice(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	release()
	return d
}

// seeds returns the seed of this run: fixed by the environment to repeat one.
func seeds(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("OVS_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("OVS_TEST_SEED=%d", seed)
	return seed
}

const modelDisk = 4 << 20

// worker does random operations on a device and keeps the history.
type worker struct {
	t    *testing.T
	rng  *rand.Rand
	host *Host
	h    *history
	n    int
}

func (w *worker) step() {
	ctx := context.Background()
	d := open(w.t, w.host, "v")
	off := w.rng.Int64N(int64(w.h.size))
	n := min(1+w.rng.Int64N(256<<10), int64(w.h.size)-off)
	if w.rng.IntN(3) > 0 { // aligned, mostly small
		off &^= 4095
		n = min(4096*(1+w.rng.Int64N(8)), int64(w.h.size)-off)
	}
	check := func(err error) {
		if err != nil {
			w.t.Fatalf("operation %d: %v", len(w.h.ops), err)
		}
	}
	switch k := w.rng.IntN(100); {
	case k < 69:
		w.n++
		data := bytes.Repeat([]byte(fmt.Sprintf("%07d.", w.n)), int(n)/8+1)[:n]
		if d.TryWrite([]Span{{off, data}}) != nil {
			check(d.Write(ctx, []Span{{off, data}}))
		}
		w.h.addRange(off, n, func(s *modelState, from, to int64) { copy(s.data[from:to], data[from-off:]) })
	case k < 77:
		check(d.Trim(ctx, off, n))
		w.h.addRange(off, n, func(s *modelState, from, to int64) { clear(s.data[from:to]) })
	case k < 82:
		check(d.Zero(ctx, off, n, w.rng.IntN(2) == 0))
		w.h.addRange(off, n, func(s *modelState, from, to int64) { clear(s.data[from:to]) })
	case k < 90:
		check(d.Flush(ctx))
		w.h.flushed = len(w.h.ops)
	case k < 92:
		w.n++
		name := fmt.Sprintf("s%d", w.n)
		_, err := w.host.SnapshotCreate(ctx, "v", name)
		check(err)
		w.h.add(func(s *modelState) { s.snaps[name] = bytes.Clone(s.data) })
		w.h.flushed = len(w.h.ops)
	case k < 93:
		if name := w.someSnapshot(); name != "" {
			check(w.host.Rollback(ctx, "v", name))
			w.h.add(func(s *modelState) { copy(s.data, s.snaps[name]) })
			w.h.flushed = len(w.h.ops)
		}
	case k < 94:
		if name := w.someSnapshot(); name != "" {
			check(w.host.SnapshotDelete(ctx, "v", name))
			w.h.deleted[name] = true
		}
	case k < 95:
		check(w.host.Sync(ctx, "v", nil))
		w.h.flushed = len(w.h.ops)
	case k < 96:
		v, err := w.host.volume("v")
		check(err)
		check(v.checkpointTo(ctx, v.buf.Written()))
		w.h.flushed = len(w.h.ops)
	case k < 99: // several closed TLogs are stored as one group
		v, err := w.host.volume("v")
		check(err)
		v.buf.CloseTLog()
	default:
		p := make([]byte, n)
		check(d.Read(ctx, p, off))
		if want := w.h.after(len(w.h.ops)).data[off : off+n]; !bytes.Equal(p, want) {
			w.t.Fatalf("read of %d bytes at %d after %d operations differs at %d", n, off, len(w.h.ops), diff(p, want))
		}
	}
}

func (w *worker) someSnapshot() string {
	list, err := w.host.SnapshotList(context.Background(), "v")
	if err != nil {
		w.t.Fatal(err)
	}
	if len(list) == 0 {
		return ""
	}
	return list[w.rng.IntN(len(list))].Name
}

func diff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// prefix finds how many operations the vDisk holds: at least min, and exactly
// some prefix of the history, snapshots included.
func prefix(t *testing.T, h *Host, hist *history, least int) int {
	t.Helper()
	got := readAll(t, open(t, h, "v"))
	list, err := h.SnapshotList(context.Background(), "v")
	if err != nil {
		t.Fatal(err)
	}
	s := hist.after(least)
	for n := least; ; n++ {
		if bytes.Equal(s.data, got) && hist.live(s) == len(list) {
			for _, i := range list {
				if b := readAll(t, open(t, h, "v@"+i.Name)); !bytes.Equal(b, s.snaps[i.Name]) {
					t.Fatalf("snapshot %s differs at %d", i.Name, diff(b, s.snaps[i.Name]))
				}
			}
			return n
		}
		if n == len(hist.ops) {
			break
		}
		hist.ops[n](s)
	}
	full, low := hist.after(len(hist.ops)), hist.after(least)
	v, _ := h.volume("v")
	if at := diff(got, low.data); at >= 0 {
		var loc [1]sco.Location
		v.head.Lookup(uint64(at)/4096, loc[:])
		t.Logf("at %d (cluster %d) there is %q at %v, flushed %q, whole %q; catalog %+v", at, at/4096, got[at:min(at+16, at/4096*4096+4096)], loc[0], low.data[at:at+16], full.data[at:at+16], v.cat.Catalog)
	}
	t.Fatalf("the vDisk is no prefix of %d operations with at least %d: differs from the flushed state at %d, from the whole at %d; %d snapshots, flushed %d, whole %d",
		len(hist.ops), least, diff(got, low.data), diff(got, full.data), len(list), hist.live(low), hist.live(full))
	return 0
}

// TestModel runs random operations with clean restarts and kills against a
// byte slice.
func TestModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(seeds(t), 1))
	var fs *crashdisk.FS = crashdisk.New()
	r, err := openRig(fs, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.host.Create(context.Background(), "v", modelDisk); err != nil {
		t.Fatal(err)
	}
	hist := newHistory(modelDisk)
	w := &worker{t: t, rng: rng, host: r.host, h: hist}
	for round := range 12 {
		for range 150 {
			w.step()
		}
		if rng.IntN(2) == 0 {
			if err := r.close(); err != nil {
				t.Fatal(err)
			}
		} else { // P1: killing the process loses no acknowledged write
			old := r
			fs = fs.Kill()
			if err := old.close(); err != nil {
				t.Fatal(err)
			}
		}
		if r, err = openRig(fs, nil); err != nil {
			t.Fatal(err)
		}
		w.host = r.host
		if n := prefix(t, r.host, hist, len(hist.ops)); n != len(hist.ops) {
			t.Fatalf("round %d: %d operations of %d", round, n, len(hist.ops))
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}
