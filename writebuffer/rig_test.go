package writebuffer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/sco"
	"openvstorage/tlog"

	"github.com/google/uuid"
)

const clusterSize = sco.ClusterSize

var testVolume = uuid.MustParse("6ba7b810-9dad-41d1-80b4-00c04fd430c8")

// patience ends a test that would hang. Nothing waits for it that works.
const patience = 20 * time.Second

// rig is a buffer and one log over a disk that breaks on demand, and what the
// volume above would remember.
type rig struct {
	t     testing.TB
	under *crashdisk.FS
	disk  *faultdisk.FS
	buf   *Buffer
	log   *Log
	vol   *volume
	found *Recovered
	ctx   context.Context

	changed chan struct{} // Owner.Changed
	pressed chan struct{} // Options.OnPressure
	fails   atomic.Int32  // calls of Owner.Failed
}

// volume stands for the volume above a log and its catalog: it survives restarts.
type volume struct {
	id     uuid.UUID
	epoch  uint64
	epochs []uint64 // base of epoch i+1
	stored uint64
	keep   map[tlog.ID]bool

	mu     sync.Mutex
	next   uint64 // seq that must come
	where  map[uint64]sco.Location
	when   map[uint64]uint64 // address -> seq
	other  []tlog.Entry
	closed []tlog.ID
	ends   []uint64
	err    error
}

func newVolume(id uuid.UUID) *volume {
	return &volume{id: id, keep: map[tlog.ID]bool{}}
}

func (v *volume) reset(next uint64) {
	v.next, v.where, v.when, v.other, v.closed, v.ends = next, map[uint64]sco.Location{}, map[uint64]uint64{}, nil, nil, nil
}

func (v *volume) ApplyWrite(seq, addr uint64, run int, loc sco.Location) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return v.err
	}
	if seq != v.next {
		panic(fmt.Sprintf("seq %d applied, %d is next", seq, v.next))
	}
	v.next++
	for i := range run {
		v.where[addr+uint64(i)], v.when[addr+uint64(i)] = loc.Add(i), seq
	}
	return nil
}

func (v *volume) ApplyEntry(e tlog.Entry) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return v.err
	}
	if e.Seq != v.next {
		panic(fmt.Sprintf("seq %d applied, %d is next", e.Seq, v.next))
	}
	v.next++
	e.Payload = bytes.Clone(e.Payload)
	v.other = append(v.other, e)
	return nil
}

func (v *volume) ClosedTLog(id tlog.ID, last uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed, v.ends = append(v.closed, id), append(v.ends, last)
}

func (v *volume) at(addr uint64) (sco.Location, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	l, ok := v.where[addr]
	return l, ok
}

func (v *volume) recoverOptions() RecoverOptions {
	return RecoverOptions{
		Volume: v.id, StoredSeq: v.stored,
		Bound: func(epoch uint64) uint64 {
			if epoch < uint64(len(v.epochs)) {
				return v.epochs[epoch] // base of the epoch after it
			}
			return math.MaxUint64
		},
		Keep: func(id tlog.ID) bool { return v.keep[id] },
	}
}

// incarnations gives every file of every test another one.
var incarnations atomic.Uint64

func random() uint64 { return incarnations.Add(1) * 0x9e3779b97f4a7c15 }

func bufferOptions(fs disk.FS) Options {
	return Options{FS: fs, Dir: "/buffer", Bytes: BytesMin, Ready: 1, Random: random}
}

// newRig returns a rig on an empty disk.
func newRig(t testing.TB) *rig { return openRig(t, crashdisk.New(), newVolume(testVolume)) }

// openRig opens buffer and log on a disk.
func openRig(t testing.TB, under *crashdisk.FS, v *volume) *rig {
	t.Helper()
	r := prepareRig(t, under, v)
	r.openLog()
	return r
}

// newFastRig returns a rig whose first SCO is pre-written. One that is not is
// left at its first flush for one that is, and which it is depends on who comes
// first: the writer or the prewriter.
func newFastRig(t testing.TB) *rig {
	t.Helper()
	r := prepareRig(t, crashdisk.New(), newVolume(testVolume))
	r.untilPrewritten()
	r.openLog()
	return r
}

// prepareRig opens the buffer alone, on a disk that obeys rules from the start.
func prepareRig(t testing.TB, under *crashdisk.FS, v *volume, rules ...faultdisk.Rule) *rig {
	t.Helper()
	r := makeRig(t, under, v)
	for _, rule := range rules {
		r.disk.Inject(rule)
	}
	r.openBuffer(bufferOptions(r.disk))
	return r
}

// makeRig is a rig whose buffer is not open yet.
func makeRig(t testing.TB, under *crashdisk.FS, v *volume) *rig {
	t.Helper()
	r := &rig{t: t, under: under, disk: faultdisk.New(under), vol: v, changed: make(chan struct{}, 1), pressed: make(chan struct{}, 1)}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return r
}

func (r *rig) openBuffer(opt Options) {
	r.t.Helper()
	if err := r.disk.MkdirAll(opt.Dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := r.disk.SyncDir("/"); err != nil {
		r.t.Fatal(err)
	}
	opt.OnPressure = func() { signal(r.pressed) }
	buf, err := Open(opt)
	if err != nil {
		r.t.Fatal(err)
	}
	r.buf = buf
	r.t.Cleanup(func() { _ = buf.Close() })
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *rig) logOptions(next uint64, s sco.Number, id tlog.ID) LogOptions {
	return LogOptions{
		Volume: r.vol.id, Epoch: r.vol.epoch, Owner: logOwner{volume: r.vol, r: r}, NextSeq: next, NextSCO: s, NextTLog: id,
	}
}

// logOwner is the vDisk of a rig as its log calls it.
type logOwner struct {
	*volume
	r       *rig
	reserve func(context.Context, sco.Number, tlog.ID) (sco.Number, tlog.ID, error) // nil: 100 more
}

func (o logOwner) Reserve(ctx context.Context, s sco.Number, id tlog.ID) (sco.Number, tlog.ID, error) {
	if o.reserve != nil {
		return o.reserve(ctx, s, id)
	}
	return s + 100, id + 100, nil
}

func (o logOwner) Failed(error) { o.r.fails.Add(1) }

func (o logOwner) Changed() { signal(o.r.changed) }

// openLog recovers and begins the next epoch.
func (r *rig) openLog() {
	r.t.Helper()
	found, err := r.buf.Recover(r.vol.recoverOptions())
	if err != nil {
		r.t.Fatal(err)
	}
	if found.Damage != nil {
		r.t.Fatalf("damage: %v", found.Damage)
	}
	r.resume(found)
}

// resume makes a writable log of what was found.
func (r *rig) resume(found *Recovered) {
	r.t.Helper()
	r.begin(found)
	if err := r.log.Resume(found); err != nil {
		r.t.Fatal(err)
	}
}

// begin opens the log of the next epoch, for Resume.
func (r *rig) begin(found *Recovered) {
	r.t.Helper()
	v := r.vol
	r.found = found
	v.epoch++
	v.epochs = append(v.epochs, found.Reached)
	v.reset(v.stored + 1)
	for _, e := range found.Entries {
		if err := replay(v, e); err != nil {
			r.t.Fatal(err)
		}
	}
	log, err := r.buf.OpenLog(r.logOptions(found.Reached+1, found.NextSCO, found.NextTLog))
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = log
	r.t.Cleanup(func() {
		if !errors.Is(log.Err(), ErrClosed) {
			_ = log.Close(nil)
		}
	})
}

func replay(v *volume, e tlog.Entry) error {
	if e.Kind == tlog.KindWrite {
		return v.ApplyWrite(e.Seq, e.Addr, int(e.Run), e.Location)
	}
	return v.ApplyEntry(e)
}

// close ends log and buffer.
func (r *rig) close() {
	r.t.Helper()
	if err := r.log.Close(func() error { return r.log.Commit(r.ctx, r.log.Written()) }); err != nil {
		r.t.Fatal(err)
	}
	if err := r.buf.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// kill goes on with the disk as after kill -9, cut as after a power cut.
func (r *rig) kill() *rig { r.t.Helper(); return openRig(r.t, r.under.Kill(), r.vol.copy()) }

func (r *rig) cut(opt crashdisk.Options) *rig {
	r.t.Helper()
	return openRig(r.t, r.under.Crash(rand.New(rand.NewPCG(1, 1)), opt), r.vol.copy())
}

// copy is what the catalog knows at this moment.
func (v *volume) copy() *volume {
	c := newVolume(v.id)
	c.epoch, c.stored = v.epoch, v.stored
	c.epochs = append(c.epochs, v.epochs...)
	for id := range v.keep {
		c.keep[id] = true
	}
	return c
}

// data is what a test writes: every cluster says its address and version.
func data(addr uint64, n int, version uint64) []byte {
	b := make([]byte, n*clusterSize)
	for i := range n {
		c := b[i*clusterSize:][:clusterSize]
		for k := 0; k < clusterSize; k += 16 {
			binary.LittleEndian.PutUint64(c[k:], addr+uint64(i))
			binary.LittleEndian.PutUint64(c[k+8:], version+uint64(k)<<40)
		}
	}
	return b
}

func batch(addr uint64, n int, version uint64) *Batch {
	return &Batch{Spans: []Span{{addr, data(addr, n, version)}}}
}

func (r *rig) write(addr uint64, n int, version uint64) {
	r.t.Helper()
	if err := r.log.Append(r.ctx, batch(addr, n, version)); err != nil {
		r.t.Fatalf("write %d+%d: %v", addr, n, err)
	}
}

func (r *rig) commit() {
	r.t.Helper()
	w := r.log.Written()
	if err := r.log.Commit(r.ctx, w); err != nil {
		r.t.Fatalf("commit: %v", err)
	}
	if d := r.log.Durable(); d < w {
		r.t.Fatalf("durable to %d after a commit of %d", d, w)
	}
}

// check reads n clusters, which must be those of that version.
func (r *rig) check(addr uint64, n int, version uint64) {
	r.t.Helper()
	for i := range uint64(n) {
		if found := r.read(addr+i, version); !found {
			r.t.Fatalf("cluster %d is not in the buffer", addr+i)
		}
	}
}

func (r *rig) read(addr, version uint64) bool {
	r.t.Helper()
	loc, ok := r.vol.at(addr)
	if !ok {
		r.t.Fatalf("cluster %d was never written", addr)
	}
	p := make([]byte, clusterSize)
	found, err := r.log.Read(loc, p, true)
	if err != nil {
		r.t.Fatalf("cluster %d at %v: %v", addr, loc, err)
	}
	if found && !bytes.Equal(p, data(addr, 1, version)) {
		r.t.Fatalf("cluster %d at %v holds other data", addr, loc)
	}
	return found
}

func (r *rig) absent(addr uint64) {
	r.t.Helper()
	if loc, ok := r.vol.at(addr); ok {
		r.t.Fatalf("cluster %d is at %v, its write was refused", addr, loc)
	}
}

// files counts the SCO-sized files on disk. One that goes from a directory to another
// while they are read would count twice.
func (r *rig) files() int {
	r.t.Helper()
	for n := r.listed(); ; {
		again := r.listed()
		if again == n {
			return n
		}
		n = again
	}
}

func (r *rig) listed() int {
	r.t.Helper()
	n := 0
	top, err := r.under.ReadDir("/buffer")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range top {
		names, err := r.under.ReadDir(path.Join("/buffer", d))
		if err != nil {
			r.t.Fatal(err)
		}
		for _, name := range names {
			if d == "pool" || strings.HasPrefix(name, "sco-") {
				n++
			}
		}
	}
	return n
}

// until waits for a condition that the log's Owner.Changed announces.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for !ok() {
		select {
		case <-r.changed:
		case <-r.ctx.Done():
			r.t.Fatalf("never: %s", what)
		}
	}
}

// untilBuffer waits for a condition that the buffer's own wake-ups announce.
func (r *rig) untilBuffer(what string, ok func() bool) {
	r.t.Helper()
	for {
		r.buf.pool.mu.Lock()
		changed, done := r.buf.pool.changed.Next(), ok()
		r.buf.pool.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			r.t.Fatalf("never: %s", what)
		}
	}
}

// untilPrewritten waits until the pool has a pre-written file.
func (r *rig) untilPrewritten() {
	r.t.Helper()
	r.untilBuffer("a file is pre-written", func() bool { return len(r.buf.pool.free) > 0 })
}

// untilReady waits until the files that come next are there.
func (r *rig) untilReady() {
	r.t.Helper()
	for {
		a := r.log.section.enter()
		ready, done := a.ready.Next(), a.next != nil && a.nextTL != nil
		a.leave()
		if done {
			return
		}
		r.log.preparer.bell.Ring()
		select {
		case <-ready:
		case <-r.ctx.Done():
			r.t.Fatal("never: the next files are there")
		}
	}
}

// untilSwapped waits until the SCO that comes next is a pre-written one.
func (r *rig) untilSwapped() {
	r.t.Helper()
	for {
		a := r.log.section.enter()
		done := a.next != nil && !a.next.sparse
		a.leave()
		if done {
			return
		}
		r.log.preparer.bell.Ring()
		if r.ctx.Err() != nil {
			r.t.Fatal("never: the next SCO is a pre-written one")
		}
		runtime.Gosched()
	}
}

// wait returns what a goroutine ends with.
func (r *rig) wait(c <-chan error) error {
	r.t.Helper()
	select {
	case err := <-c:
		return err
	case <-r.ctx.Done():
		r.t.Fatal("never: a goroutine ends")
		return nil
	}
}

// storeAll closes the TLog and plays the storer for all that is closed.
func (r *rig) storeAll() {
	r.t.Helper()
	r.log.CloseTLog()
	w := r.log.Work()
	var buf []byte
	for _, s := range w.SCOs {
		if s.Empty() {
			continue
		}
		var err error
		if buf, err = s.Object(buf, nil); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, t := range w.TLogs {
		r.vol.keep[t.ID] = true
		r.vol.stored = max(r.vol.stored, t.LastSeq)
		r.log.Stored(t.ID, nil)
	}
}

// fill writes whole batches until an SCO has been sealed n times; returns the
// next address.
func (r *rig) fill(addr uint64, scos int, version uint64) uint64 {
	r.t.Helper()
	n := r.log.BatchMax()
	for range scos * (r.log.room/n + 1) {
		r.write(addr, n, version)
		addr += uint64(n)
	}
	return addr
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, not %v", err, want)
	}
}

// readFile reads a file whole.
func readFile(d disk.FS, name string) (b []byte, err error) {
	f, err := d.OpenFile(name, 0, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	b = make([]byte, n)
	if n > 0 {
		_, err = f.ReadAt(b, 0)
	}
	return b, err
}
