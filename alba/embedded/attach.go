package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/stopdisk"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// opening is an ASD that is being opened. What it became may be looked at when its
// errand has ended.
type opening struct {
	*errand
	asd *asd.ASD
	err error

	calls int64     // of it that had come back when it was looked at
	moved time.Time // when they were fewer
}

// openEnough is after how long a disk that is still being opened is not waited for,
// if objects can be stored without it: one that was not closed cleanly reads much of
// itself, which takes a slow disk long.
const openEnough = 8 * time.Second

// attach opens disks of the fleet that are where they should be, side by side: one
// that was not closed cleanly reads much of itself. One that does not answer is
// missing, and attached by a later call, when it has answered. b.mu is held.
func (b *Backend) attach(ctx context.Context, disks ...*fleet.Disk) {
	later := b.attachSome(ctx, b.find(ctx, disks))
	for _, d := range b.attachSome(ctx, later) {
		b.cannotOpen(d, fmt.Errorf("%w in %s: another one is being opened there", asd.ErrNoASD, b.path(d.Place)))
	}
}

// attachSome is attach, but for disks in whose places others are being opened, which
// it returns: some have changed places. b.mu is held.
func (b *Backend) attachSome(ctx context.Context, disks []*fleet.Disk) (later []*fleet.Disk) {
	type result struct {
		d   *fleet.Disk
		o   *opening
		err error // why it was left
	}
	waiting, leave := context.WithCancel(ctx)
	defer leave()
	results := make(chan result, len(disks))
	left := 0
	for _, d := range disks {
		o, err := b.begin(ctx, d)
		if errors.Is(err, errTaken) {
			later = append(later, d)
			continue
		}
		if err != nil {
			b.cannotOpen(d, err)
			continue
		}
		left++
		go func() { results <- result{d, o, o.wait(waiting)} }()
	}
	long := time.NewTicker(openEnough)
	defer long.Stop()
	for left > 0 {
		select {
		case r := <-results:
			left--
			if errors.Is(r.err, context.Canceled) && ctx.Err() == nil {
				r.d.Unopened(r.o.underWay())
			} else if r.err != nil {
				b.cannotOpen(r.d, r.err)
			} else {
				b.opened(ctx, r.d, r.o)
			}
		case <-long.C:
			if b.enough(ctx) {
				leave()
			}
		}
	}
	return later
}

var errTaken = errors.New("another disk is being opened there")

// begin opens a disk, or returns the open of it that is under way.
func (b *Backend) begin(ctx context.Context, d *fleet.Disk) (*opening, error) {
	if o := b.opening[d.Number]; o != nil {
		return o, nil
	}
	dir := b.path(d.Place)
	for _, other := range b.opening {
		if other.dir == dir {
			return nil, errTaken
		}
	}
	o := new(opening)
	door := stopdisk.New(b.opt.FS)
	ctx = context.WithoutCancel(ctx)
	e, err := b.errand(dir, door, func(fsys disk.FS) {
		if o.asd, o.err = b.openASD(ctx, fsys, dir, d.UUID); o.asd != nil && door.Stopped() {
			_ = o.asd.Close() // nobody waits for it
		}
	})
	if err != nil {
		return nil, err
	}
	o.errand = e
	b.opening[d.Number] = o
	return o, nil
}

// opened takes what an open has become. b.mu is held.
func (b *Backend) opened(ctx context.Context, d *fleet.Disk, o *opening) {
	delete(b.opening, d.Number)
	if o.err != nil {
		b.cannotOpen(d, o.err)
		return
	}
	b.asds[d.Number], b.doors[d.Number] = o.asd, o.fs
	d.Attach(o.asd)
	d.Follow(o.fs.Turn)
	if err := d.Refresh(ctx); err != nil {
		b.opt.Logger.Warn("a disk does not tell how full it is", "disk", d.Number, "err", err)
	}
	b.opt.Logger.Info("disk is there", "disk", d.Number, "dir", o.dir)
	if b.work != nil {
		b.work.Wake()
	}
}

// enough reports whether the disks that are attached can keep one of the policies of
// the default preset.
func (b *Backend) enough(ctx context.Context) bool {
	rec, err := b.abm.Backend(ctx, userfn.Consistent)
	if err != nil {
		return false
	}
	r, err := b.abm.Preset(ctx, rec.Default, userfn.Consistent)
	if err != nil {
		return false
	}
	p, err := preset.Decode(r.Data)
	if err != nil {
		return false
	}
	_, _, ok := policy.Choose(p.Policies, b.fleet.Disks())
	return ok
}

// openASD opens the ASD in a directory if it is the one that is wanted.
func (b *Backend) openASD(ctx context.Context, fsys disk.FS, dir string, id uuid.UUID) (*asd.ASD, error) {
	there, err := asd.ReadIdentity(fsys, dir)
	if err != nil {
		return nil, err
	}
	switch {
	case there.ID != id:
		return nil, fmt.Errorf("%s holds another ASD, %s: put back the one that was here, or take that directory for `ovs alba osd replace`", dir, there.ID)
	case there.Owner != uuid.Nil && there.Owner != b.opt.ID:
		return nil, fmt.Errorf("the ASD in %s belongs to backend %s", dir, there.Owner)
	}
	if err := b.mayAttach(fsys, dir, id); err != nil {
		return nil, err
	}
	b.tighten(fsys, dir)
	a, err := asd.Open(asd.Options{
		FS: fsys, Dir: dir, Leave: b.leave(fsys, dir), SegmentBytes: b.opt.SegmentBytes, Descriptors: b.files, Logger: b.opt.Logger.With("asd", dir),
	})
	if err != nil {
		return nil, err
	}
	// It remembers this start before it takes anything from it. One that is full
	// can still be read and deleted from, one that takes no writes be read; either
	// is told with the next beat that it takes.
	m := b.groups.Mark()
	if err := a.Raise(ctx, m); errors.Is(err, syscall.ENOSPC) || errors.Is(err, osd.ErrReadOnly) {
		b.opt.Logger.Warn("a disk has not remembered this start yet", "dir", dir, "err", err)
	} else if err != nil {
		return nil, errors.Join(err, a.Close())
	} else {
		b.told(a, m)
	}
	return a, nil
}

// reopenEvery is how often a disk is opened anew that takes no writes, or that is
// there and could not be opened: an open may read much.
const reopenEvery = 5 * time.Second

// look opens a disk that is missing, if it is back, and one that takes no
// writes or answers with errors only: what made it so may be over, and if its
// directory was taken away, or cannot be read, it is missing. One that does not
// answer, or not yet, is left alone: it is there again when it does.
func (b *Backend) look(ctx context.Context, d *fleet.Disk, reopened map[uint64]time.Time) {
	reason := d.Refresh(ctx) // before the lock: a dying disk takes its time
	if d.Attached() == nil && (errors.Is(reason, fleet.ErrNotAnswering) || errors.Is(reason, fleet.ErrLate)) {
		return
	}
	if reason == nil {
		reason = d.Known().ReadOnly
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	dir := b.path(d.Place)
	if b.fleet.Disk(d.Number) != d {
		return
	}
	if o := b.opening[d.Number]; o != nil && b.busy(dir) {
		b.watchOpening(d, o)
		return
	}
	if b.busy(dir) {
		return
	}
	again := time.Since(reopened[d.Number]) >= reopenEvery
	if d.Attached() != nil {
		if b.opening[d.Number] == nil && !errors.Is(d.Reason(), asd.ErrNoASD) {
			if !again {
				return
			}
			reopened[d.Number] = time.Now()
		}
		b.attach(ctx, d)
		return
	}
	if reason == nil || errors.Is(reason, fleet.ErrMissing) || ctx.Err() != nil || !again {
		return
	}
	reopened[d.Number] = time.Now()
	if b.readOnly(ctx, dir) || b.busy(dir) || ctx.Err() != nil {
		return // it can be read, and would be no better; or nobody knows
	}
	b.opt.Logger.Warn("a disk takes no writes, or does not answer; it is opened anew", "disk", d.Number, "err", reason)
	d.Detach(reason)
	b.closeASD(ctx, d.Number)
	b.attach(ctx, d)
}

// tighten makes an ASD its owner's alone: the mount point of a disk may be open to
// all. One whose mode cannot be changed (its disk is read-only, say) is told, and
// used: what is on it was there for others to read before.
func (b *Backend) tighten(fsys disk.FS, dir string) {
	t := disk.TightenOnce(fsys, dir)
	if t.Names > 0 {
		b.opt.Logger.Warn("an ASD was open to other users of this machine; it is its owner's alone now", "dir", dir, "names", t.Names, "mode", fmt.Sprintf("%04o", t.Was))
	}
	if t.Failed > 0 {
		b.opt.Logger.Warn("other users of this machine may read what is on an ASD: chmod -R go= it", "dir", dir, "err", t.Err)
	}
}

// watchOpening looks at an open that goes on without its caller. When its calls do
// not come back any more its disk does not answer, like any other that hangs. b.mu
// is held.
func (b *Backend) watchOpening(d *fleet.Disk, o *opening) {
	n, now := int64(o.fs.Done()), time.Now()
	switch {
	case n != o.calls || o.moved.IsZero():
		o.calls, o.moved = n, now
		d.Unopened(o.underWay())
	case now.Sub(o.moved) >= errandStall:
		b.cannotOpen(d, o.silent())
	}
}

// underWay is why a disk that is being opened is not there yet.
func (o *opening) underWay() error {
	return fmt.Errorf("%s is being opened since %s", o.dir, o.since.UTC().Format(time.RFC3339))
}

// readOnly reports whether the file system of an ASD takes no writes, whoever asks.
func (b *Backend) readOnly(ctx context.Context, dir string) bool {
	err := b.aside(ctx, dir, func(fsys disk.FS) error {
		f, err := fsys.OpenFile(path.Join(dir, asd.IdentityName), disk.Write, 0)
		if err == nil {
			err = f.Close()
		}
		return err
	})
	return errors.Is(err, unix.EROFS)
}

// closeASD closes an ASD. If its disk does not answer that goes on without its
// caller, and nothing else is done there until it has ended. b.mu is held.
func (b *Backend) closeASD(ctx context.Context, number uint64) {
	a, door := b.asds[number], b.doors[number]
	if a == nil {
		return
	}
	delete(b.asds, number)
	delete(b.doors, number)
	var err error
	e, begun := b.errand(a.Dir(), door, func(disk.FS) { err = a.Close() })
	if begun == nil {
		if begun = e.wait(ctx); begun == nil {
			begun = err
		}
	} else { // something is under way there: its lock must be free all the same
		door.Stop()
		go func() { _ = a.Close() }()
	}
	if begun != nil {
		b.opt.Logger.Warn("close of a disk", "disk", number, "dir", a.Dir(), "err", begun)
	}
}

// drop takes a disk out of the fleet. b.mu is held.
func (b *Backend) drop(ctx context.Context, number uint64, reason error) {
	if d := b.fleet.Disk(number); d != nil {
		d.Detach(reason)
		b.fleet.Remove(number)
	}
	door := b.doors[number]
	if o := b.opening[number]; o != nil {
		delete(b.opening, number)
		door = o.fs
		select {
		case <-o.done: // it has ended, and nobody has taken it
			if o.asd != nil {
				b.asds[number], b.doors[number] = o.asd, o.fs
			}
		default:
		}
	}
	b.closeASD(ctx, number)
	if door != nil {
		door.Stop() // given up for good: what has not ended is not waited for
	}
}

// closeStall is how long no call of a disk may come back before its ASD is left
// unclosed.
const closeStall = 2 * time.Second

// closeDisks closes all ASDs, side by side. What a disk does not do in time is not
// done: to the next start it is as if the process had been killed. b.mu is held.
func (b *Backend) closeDisks() error {
	var mu sync.Mutex
	var errs []error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			errs = append(errs, err)
		}
	}
	b.settleErrands(fail)
	var all sync.WaitGroup
	for number, a := range b.asds {
		silent := fmt.Errorf("disk %d (%s): %w: it was left as it is, and its lock given back", number, a.Dir(), fleet.ErrNotAnswering)
		stall := closeStall
		if d := b.fleet.Disk(number); d != nil {
			if d.Silent() != nil {
				stall = errandLook // it has had its time
			}
			d.Detach(errors.New("the backend is closed"))
		}
		var err error
		e, begun := b.errand(a.Dir(), b.doors[number], func(disk.FS) { err = a.Close() })
		if begun != nil {
			b.doors[number].Stop()
			go func() { _ = a.Close() }() // when what is under way has come back; it can do nothing
			fail(silent)
			continue
		}
		all.Go(func() {
			if e.waitFor(context.Background(), stall) != nil {
				e.fs.Stop()
				fail(silent)
				return
			}
			fail(err)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// settleErrands waits for the errands that are under way, while their calls come back
// and not for long, and gives up what they have locked. An open that has ended and that
// nobody has taken is closed. b.mu is held.
func (b *Backend) settleErrands(fail func(error)) {
	b.errandMu.Lock()
	left := slices.Collect(maps.Values(b.errands))
	b.errandMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeStall+time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, e := range left {
		all.Go(func() {
			err := e.waitFor(ctx, closeStall)
			if err == nil {
				return
			}
			e.fs.Stop()
			if ours := slices.ContainsFunc(slices.Collect(maps.Values(b.doors)), func(d *stopdisk.FS) bool { return d == e.fs }); !ours && ctx.Err() == nil {
				fail(err) // of the others their own close tells
			}
		})
	}
	all.Wait()
	for number, o := range b.opening {
		select {
		case <-o.done:
			if o.asd != nil {
				b.asds[number], b.doors[number] = o.asd, o.fs
			}
		default:
		}
	}
}
