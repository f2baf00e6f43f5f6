// Package memtest is a pool of vDisks in memory, for tests of the mount.
package memtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"

	"openvstorage/device"
	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree"
	"openvstorage/internal/broadcast"
)

// Pool implements fusefs.Pool.
type Pool struct {
	keys     filetree.Keys
	mu       sync.Mutex
	disks    map[string]*Disk
	left     broadcast.Broadcast // a user of a vDisk has left
	next     int
	clones   int
	listed   atomic.Uint64
	hold     atomic.Pointer[chan struct{}] // clones wait for it
	cloning  atomic.Int32
	shut     atomic.Pointer[chan struct{}] // opens wait for it
	opening  atomic.Int32
	refuse   atomic.Pointer[error]
	stall    atomic.Pointer[stall]
	settling atomic.Pointer[stall]
	before   atomic.Pointer[func()]
	doubt    atomic.Pointer[bool]
}

// stall is what writes, or renamings of directories, wait for.
type stall struct {
	over    chan struct{}
	waiting atomic.Int32
}

var _ fusefs.Pool = (*Pool)(nil)

// New returns an empty pool. keys are those of the mount's tree: what a renaming
// of many vDisks changes of them goes there.
func New(keys filetree.Keys) *Pool { return &Pool{keys: keys, disks: map[string]*Disk{}} }

// Fail makes all I/O end with an error that has no errno, or not any more.
func (p *Pool) Fail(yes bool) {
	if !yes {
		p.Refuse(nil)
		return
	}
	p.Refuse(errHalted)
}

var errHalted = errors.New("halted")

// Refuse makes all I/O, and what makes a vDisk larger or another one, end with
// err, or not any more.
func (p *Pool) Refuse(err error) { p.refuse.Store(&err) }

func (p *Pool) failure() error {
	if err := p.refuse.Load(); err != nil && *err != nil {
		return fmt.Errorf("no I/O: %w", *err)
	}
	return nil
}

// Halt halts a vDisk: it can be read, and nothing else.
func (p *Pool) Halt(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disks[name].halted.Store(true)
}

// BeforeDelete has the next deletion call fn first: others are faster.
func (p *Pool) BeforeDelete(fn func()) { p.before.Store(&fn) }

// Stall makes writes wait until over is called. waiting counts those that do.
func (p *Pool) Stall() (over func(), waiting func() int) {
	s := &stall{over: make(chan struct{})}
	p.stall.Store(s)
	return func() { p.stall.Store(nil); close(s.over) }, func() int { return int(s.waiting.Load()) }
}

// Disk is a vDisk or a snapshot in memory.
type Disk struct {
	pool    *Pool
	id      uuid.UUID
	created int64
	refs    int
	snaps   []fusefs.Snapshot
	old     map[string]*Disk

	halted atomic.Bool

	mu     sync.RWMutex
	data   []byte
	held   []bool // by cluster, whether it was written
	change fusefs.Change
}

// changed notes a change. d.mu is held.
func (d *Disk) changed() {
	d.change.Seen++
	d.change.Last, d.change.At = d.change.Seen, time.Now().UnixNano()
}

// Reopen has all vDisks be opened again, as a start of the process does.
func (p *Pool) Reopen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.disks {
		d.mu.Lock()
		c := &d.change
		*c = fusefs.Change{Epoch: c.Epoch + 1, Base: c.Seen, Seen: c.Seen, Last: c.Seen, At: time.Now().UnixNano()}
		d.mu.Unlock()
	}
}

// Get returns a vDisk, as another front end has it.
func (p *Pool) Get(name string) *Disk {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.disks[name]
}

// HoldClones makes clones wait until over is called, or they are cancelled.
func (p *Pool) HoldClones() (over func()) {
	c := make(chan struct{})
	p.hold.Store(&c)
	return func() { p.hold.Store(nil); close(c) }
}

// Cloning is how many clones wait.
func (p *Pool) Cloning() int { return int(p.cloning.Load()) }

// HoldOpens makes opens wait until over is called, or they are cancelled.
func (p *Pool) HoldOpens() (over func()) {
	c := make(chan struct{})
	p.shut.Store(&c)
	return func() { p.shut.Store(nil); close(c) }
}

// Opening is how many opens wait.
func (p *Pool) Opening() int { return int(p.opening.Load()) }

// Listed implements fusefs.Pool.
func (p *Pool) Listed() uint64 { return p.listed.Load() }

// Used implements fusefs.Pool.
func (p *Pool) Used(ctx context.Context, name string) (int64, error) {
	i, err := p.Info(ctx, name)
	return i.Size, err
}

// InfoOf implements fusefs.Pool.
func (p *Pool) InfoOf(_ context.Context, id uuid.UUID) (fusefs.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, d := range p.disks {
		if d.id == id {
			return p.info(name, d), nil
		}
	}
	return fusefs.Info{}, fmt.Errorf("vDisk %v: %w", id, fs.ErrNotExist)
}

// failure is why the vDisk takes no changes.
func (d *Disk) failure() error {
	if d.halted.Load() {
		return errHalted
	}
	return d.pool.failure()
}

func (p *Pool) get(name string) (*Disk, error) {
	d := p.disks[name]
	if d == nil {
		return nil, fmt.Errorf("vDisk %q: %w", name, fs.ErrNotExist)
	}
	return d, nil
}

func (p *Pool) info(name string, d *Disk) fusefs.Info {
	state := "running"
	if d.halted.Load() {
		state = "halted"
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	held := int64(0)
	for _, is := range d.held {
		if is {
			held += 4096
		}
	}
	size := int64(len(d.data))
	return fusefs.Info{Name: name, ID: d.id, Size: size, Allocated: min(held, size), State: state, Change: d.change, Created: d.created, Snapshots: d.snaps}
}

// List implements fusefs.Pool.
func (p *Pool) List(context.Context) ([]fusefs.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []fusefs.Info
	for name, d := range p.disks {
		list = append(list, p.info(name, d))
	}
	slices.SortFunc(list, func(a, b fusefs.Info) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Info implements fusefs.Pool.
func (p *Pool) Info(_ context.Context, name string) (fusefs.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.get(name)
	if err != nil {
		return fusefs.Info{}, err
	}
	return p.info(name, d), nil
}

// Open implements fusefs.Pool.
func (p *Pool) Open(ctx context.Context, name string) (device.Reader, func(), error) {
	if shut := p.shut.Load(); shut != nil {
		p.opening.Add(1)
		defer p.opening.Add(-1)
		select {
		case <-*shut:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name, snap, isSnap := strings.Cut(name, "@")
	d, err := p.get(name)
	if err != nil {
		return nil, nil, err
	}
	dev := d
	if isSnap {
		if dev = d.old[snap]; dev == nil {
			return nil, nil, fs.ErrNotExist
		}
	}
	d.refs++
	return dev, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		d.refs--
		p.left.Send()
	}, nil
}

// CreateAs implements fusefs.Pool.
func (p *Pool) CreateAs(ctx context.Context, size int64, naming fusefs.Naming) error {
	id := p.newID()
	return naming(id, func(name string) error { return p.create(ctx, name, id, size) })
}

// newID returns an id that no vDisk has.
func (p *Pool) newID() uuid.UUID {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	return uuid.UUID{15: byte(p.next), 14: byte(p.next >> 8)}
}

// Create makes a vDisk.
func (p *Pool) Create(ctx context.Context, name string, size int64) error {
	return p.create(ctx, name, p.newID(), size)
}

func (p *Pool) create(_ context.Context, name string, id uuid.UUID, size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.failure(); err != nil {
		return err
	}
	if p.disks[name] != nil {
		return fs.ErrExist
	}
	p.disks[name] = &Disk{pool: p, id: id, data: make([]byte, size), old: map[string]*Disk{}}
	p.disks[name].created, p.disks[name].change = time.Now().UnixNano(), fusefs.Change{Epoch: 1, At: time.Now().UnixNano()}
	p.listed.Add(1)
	return nil
}

// CloneAs implements fusefs.Pool.
func (p *Pool) CloneAs(ctx context.Context, from string, naming fusefs.Naming) error {
	p.mu.Lock()
	from, snap, isSnap := strings.Cut(from, "@")
	d, err := p.get(from)
	if err == nil && isSnap {
		if d = d.old[snap]; d == nil {
			err = fs.ErrNotExist
		}
	}
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.failure(); err != nil {
		return err
	}
	if c := p.hold.Load(); c != nil {
		p.cloning.Add(1)
		defer p.cloning.Add(-1)
		select {
		case <-*c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	id := p.newID()
	return naming(id, func(name string) error { return p.cloneOf(ctx, d, name, id) })
}

func (p *Pool) cloneOf(ctx context.Context, d *Disk, name string, id uuid.UUID) error {
	if err := p.create(ctx, name, id, 0); err != nil {
		return err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.disks[name].data = bytes.Clone(d.data)
	p.disks[name].held = slices.Clone(d.held)
	p.clones++
	return nil
}

// Clones returns how often a vDisk was cloned.
func (p *Pool) Clones() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clones
}

// Resize implements fusefs.Pool.
func (p *Pool) Resize(_ context.Context, name string, size int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.get(name)
	if err != nil {
		return err
	}
	if err := d.failure(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if size < int64(len(d.data)) {
		return fs.ErrInvalid
	}
	d.data = append(d.data, make([]byte, size-int64(len(d.data)))...)
	d.changed()
	return nil
}

// DoubtDelete has the next deletion not be answered, whether it is made or not.
func (p *Pool) DoubtDelete(made bool) { p.doubt.Store(&made) }

// Delete implements fusefs.Pool.
func (p *Pool) Delete(ctx context.Context, name string, check func(fusefs.Info) error) error {
	if fn := p.before.Swap(nil); fn != nil {
		(*fn)()
	}
	p.awaitLeaving(ctx, name)
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.get(name)
	if err != nil {
		return err
	}
	if err := check(p.info(name, d)); err != nil {
		return err
	}
	if d.refs > 0 {
		return fmt.Errorf("vDisk %q: in use: %w", name, syscall.EBUSY)
	}
	made := p.doubt.Swap(nil)
	if made == nil || *made {
		delete(p.disks, name)
		p.listed.Add(1)
	}
	if made != nil {
		return fmt.Errorf("vDisk %q: %w: %w", name, fusefs.ErrUnknownOutcome, syscall.EIO)
	}
	return nil
}

// leaveWait is how long a deletion waits for users that are about to leave, as the product
// does: the kernel tells of a closed file after the close has returned.
const leaveWait = 500 * time.Millisecond

func (p *Pool) awaitLeaving(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for {
		p.mu.Lock()
		d, left := p.disks[name], p.left.Next()
		used := d != nil && d.refs > 0
		p.mu.Unlock()
		if !used {
			return
		}
		select {
		case <-left:
		case <-ctx.Done():
			return
		}
	}
}

// Snapshot implements fusefs.Pool.
func (p *Pool) Snapshot(_ context.Context, name, snap string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, err := p.get(name)
	if err != nil {
		return err
	}
	if err := d.failure(); err != nil {
		return err
	}
	if d.old[snap] != nil {
		return fs.ErrExist
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.change.Seen++ // which changes nothing
	p.listed.Add(1)
	d.old[snap] = &Disk{pool: p, data: bytes.Clone(d.data), held: slices.Clone(d.held)}
	d.snaps = append(slices.Clone(d.snaps), fusefs.Snapshot{Name: snap, Size: int64(len(d.data)), Allocated: int64(len(d.data)) / 2})
	return nil
}

// Space implements fusefs.Pool.
func (p *Pool) Space(context.Context) (fusefs.Space, error) {
	return fusefs.Space{Total: 1 << 30, Free: 1 << 29}, nil
}

// Size implements device.Device.
func (d *Disk) Size() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return int64(len(d.data))
}

// TryRead implements device.Device; what is not aligned has to wait.
func (d *Disk) TryRead(p []byte, off int64) error {
	if off%4096 != 0 {
		return device.ErrWouldBlock
	}
	return d.Read(context.Background(), p, off)
}

// Read implements device.Device.
func (d *Disk) Read(_ context.Context, p []byte, off int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	copy(p, d.data[off:])
	return d.pool.failure()
}

// TryWrite implements device.Device; what is not aligned has to wait.
func (d *Disk) TryWrite(batch []device.Span) error {
	if batch[0].Off%4096 != 0 || d.pool.stall.Load() != nil {
		return device.ErrWouldBlock
	}
	return d.Write(context.Background(), batch)
}

// Write implements device.Device.
func (d *Disk) Write(ctx context.Context, batch []device.Span) error {
	if s := d.pool.stall.Load(); s != nil {
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
		select {
		case <-s.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := d.failure(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range batch {
		copy(d.data[s.Off:], s.Data)
		d.hold(s.Off, int64(len(s.Data)), true)
	}
	d.changed()
	return nil
}

// Flush implements device.Device.
func (d *Disk) Flush(context.Context) error { return d.failure() }

// Trim implements device.Device.
func (d *Disk) Trim(ctx context.Context, off, n int64) error { return d.Zero(ctx, off, n, false) }

// Zero implements device.Device.
func (d *Disk) Zero(_ context.Context, off, n int64, allocate bool) error {
	if err := d.failure(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+n])
	if allocate {
		d.hold(off, n, true)
	} else if first, end := (off+4095)&^4095, d.whole(off+n); first < end {
		d.hold(first, end-first, false)
	}
	d.changed()
	return nil
}

// Prefetch implements device.Reader: all is near.
func (d *Disk) Prefetch(context.Context, int64, int64) error { return nil }

// Extents implements device.Device: what holds no data is a hole.
func (d *Disk) Extents(_ context.Context, off, n int64, fn func(device.Extent) bool) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	hole := func(at int64) bool { return at/4096 >= int64(len(d.held)) || !d.held[at/4096] }
	for end := off + n; off < end; {
		is, next := hole(off), off
		for next < end && hole(next) == is {
			next = min(next&^4095+4096, end)
		}
		if !fn(device.Extent{Length: next - off, Hole: is, Zero: is}) {
			break
		}
		off = next
	}
	return nil
}

// whole is the end of the whole clusters before end; the last one of the disk may be
// short. d.mu is held.
func (d *Disk) whole(end int64) int64 {
	if end == int64(len(d.data)) {
		return end
	}
	return end &^ 4095
}

// hold notes whether clusters hold data. d.mu is held.
func (d *Disk) hold(off, n int64, yes bool) {
	for len(d.held) < (len(d.data)+4095)/4096 {
		d.held = append(d.held, false)
	}
	for c := off / 4096; c*4096 < min(off+n, int64(len(d.data))); c++ {
		d.held[c] = yes
	}
}
