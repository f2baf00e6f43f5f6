package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
)

// stuckReads is how many reads may wait for a disk before others are asked
// instead: a disk that hangs must not take all memory.
const stuckReads = 512

// readRange fills dst with a range of a fragment: from the cache, from the disk
// that has it, or made from k others.
func (rd *reader) readRange(ctx context.Context, s *space, e *entry, r object.Range, dst []byte) error {
	if rd.fromCache(e, r, dst) {
		return nil
	}
	r = rd.prefer(e, r)
	d, err := rd.diskOf(e, r.Chunk, r.Fragment)
	others := rd.others(e, r, r.Fragment) >= int(e.m.Policy.K)
	switch {
	case err != nil:
		return rd.fromOthers(ctx, s, e, r, dst, nil, err)
	case !others: // nobody else could be asked
		return rd.readAlone(ctx, s, e, r, d, dst, make([]error, e.m.Policy.Width()))
	case d.Silent() != nil:
		err = d.Silent()
	case rank(d) == fleet.Slow && rd.sparing.Add(1)%sampleEvery != 0:
		err = fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place)
	case d.Stuck(stuckReads):
		err = fmt.Errorf("disk %d (%s): %d reads wait for it", d.Number, d.Place, stuckReads)
	default:
		return rd.readHedged(ctx, s, e, r, d, dst)
	}
	failed := make([]error, e.m.Policy.Width())
	if rd.gather(ctx, e, r, dst, nil, err, failed) == nil {
		return nil
	}
	return rd.readAlone(ctx, s, e, r, d, dst, failed)
}

// sampleEvery: of so many reads one goes to a disk that is slow, so that it is seen
// when it is well again.
const sampleEvery = 32

// begin starts the read of a range from its own disk.
func (rd *reader) begin(ctx context.Context, e *entry, r object.Range, d *fleet.Disk) *task {
	t := rd.newTask(e, r, 2)
	t.buf = rd.buffers.take(int(r.Len))
	ctx = context.WithoutCancel(ctx) // its buffer must not be let go of half-way
	go func() {
		t.run(ctx, d)
		t.done <- struct{}{}
		t.release()
	}()
	return t
}

// readAlone reads a range from its disk, which is the only one that can give it.
func (rd *reader) readAlone(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte, failed []error) error {
	lacks := func(err error) error {
		failed[r.Fragment] = err
		return rd.unreadable(s, e, r, rd.lacking(ctx, e, r, failed))
	}
	if err := d.Silent(); err != nil && notAsked(d) {
		return lacks(err)
	}
	answers := d.Answers()
	t := rd.begin(ctx, e, r, d)
	defer t.release()
	select {
	case <-t.done:
	case <-ctx.Done():
		return ctx.Err()
	case <-answers.Done():
		late := time.NewTimer(silentPatience)
		defer late.Stop()
		select {
		case <-t.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return lacks(silentNow(d))
		}
	}
	if t.err == nil {
		copy(dst, t.buf)
		return nil
	}
	rd.report(e, r, t.err)
	return lacks(t.err)
}

// readHedged reads a range from its disk, and from others too if it is slow.
func (rd *reader) readHedged(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte) error {
	t := rd.begin(ctx, e, r, d)
	defer t.release()
	timer := time.NewTimer(d.Patience(int(r.Len)))
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
		rd.counts.hedged.Add(1)
		return rd.fromOthers(ctx, s, e, r, dst, t, fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place))
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.err == nil {
		copy(dst, t.buf)
		return nil
	}
	rd.report(e, r, t.err)
	return rd.fromOthers(ctx, s, e, r, dst, nil, t.err)
}

// task is one read of a range from one disk.
type task struct {
	by   *reader
	e    *entry
	r    object.Range
	buf  []byte // the task's own, given back with it
	crcs []uint32
	key  []byte
	err  error
	done chan struct{}
	refs atomic.Int32
}

func (rd *reader) newTask(e *entry, r object.Range, refs int32) *task {
	t, ok := rd.tasks.Get().(*task)
	if !ok {
		t = &task{by: rd, done: make(chan struct{}, 1)}
	}
	t.e, t.r, t.err = e, r, nil
	t.refs.Store(refs)
	if n := int(r.Len) / osd.BlockSize; cap(t.crcs) < n {
		t.crcs = make([]uint32, n)
	} else {
		t.crcs = t.crcs[:n]
	}
	return t
}

// release ends one use of a task.
func (t *task) release() {
	if t.refs.Add(-1) > 0 {
		return
	}
	if t.buf != nil {
		t.by.buffers.give(t.buf)
		t.buf = nil
	}
	select { // a result that nobody waited for
	case <-t.done:
	default:
	}
	t.e = nil
	t.by.tasks.Put(t)
}

// run reads the range, checks it, and offers it to the cache.
func (t *task) run(ctx context.Context, d *fleet.Disk) {
	rd := t.by
	t.key = t.e.m.Key(t.r.Chunk, t.r.Fragment).Append(t.key[:0])
	if t.err = d.ReadWaiting(ctx, t.key, t.r.Off, t.buf, t.crcs); t.err != nil {
		return
	}
	rd.counts.reads.Add(1)
	rd.counts.readBytes.Add(uint64(t.r.Len))
	if t.err = object.Verify(t.e.m, t.r, t.buf, t.crcs); t.err != nil {
		t.err = fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, t.err)
		return
	}
	rd.toCache(t.e, t.r, t.buf, t.crcs)
}

// diskOf returns the disk that has a fragment, or why it cannot be read. The disk may be
// one that does not answer now: that is asked last, and may answer yet.
func (rd *reader) diskOf(e *entry, chunk, fragment int) (*fleet.Disk, error) {
	f := &e.m.Chunks[chunk].Fragments[fragment]
	if f.OSD == policy.None {
		return nil, fmt.Errorf("fragment %d is on no disk yet", fragment)
	}
	d := rd.fleet.Disk(f.OSD)
	if d == nil {
		return nil, fmt.Errorf("disk %d: %w: it is lost", f.OSD, fleet.ErrMissing)
	}
	return d, d.Attached()
}

// prefer returns the range to read first. With k = 1 all fragments have the same bytes, and
// the one on the best disk is chosen.
func (rd *reader) prefer(e *entry, r object.Range) object.Range {
	if e.m.Policy.K > 1 {
		return r
	}
	for _, worst := range []fleet.State{fleet.Well, fleet.Slow, fleet.Failing} {
		for i := range e.m.Policy.Width() {
			if d, err := rd.diskOf(e, r.Chunk, i); err == nil && rank(d) <= worst {
				r.Fragment = i
				return r
			}
		}
	}
	return r
}

// others counts the fragments of a chunk whose disks are there and answer, but for one
// fragment.
func (rd *reader) others(e *entry, r object.Range, besides int) int {
	n := 0
	for i := range e.m.Policy.Width() {
		if i == besides {
			continue
		}
		if d, err := rd.diskOf(e, r.Chunk, i); err == nil && d.Silent() == nil {
			n++
		}
	}
	return n
}

// absent says which fragments of a chunk cannot be read, and why.
func (rd *reader) absent(e *entry, chunk int) error {
	var errs []error
	for i := range e.m.Policy.Width() {
		if _, err := rd.diskOf(e, chunk, i); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// gathering is a range that is made from k fragments.
type gathering struct {
	by      *reader
	e       *entry
	r       object.Range
	tried   []bool
	waiting int           // for so many tasks
	asked   []*fleet.Disk // for whose tasks, by fragment; nil: not waited for
	failed  []error       // why each was not good
	results chan *task    // has room for all
	good    []*task
}

// fromOthers is gather whose error says which range of which object cannot be read.
func (rd *reader) fromOthers(ctx context.Context, s *space, e *entry, r object.Range, dst []byte, own *task, why error) error {
	err := rd.gather(ctx, e, r, dst, own, why, make([]error, e.m.Policy.Width()))
	if err == nil || ctx.Err() != nil {
		return err
	}
	return rd.unreadable(s, e, r, err)
}

// gather makes a range from k other fragments. own is the read of the range's own fragment
// if it is still under way, else nil; whichever is done first counts. why is why the own
// fragment cannot be read, or not soon. failed takes why each fragment was not good.
func (rd *reader) gather(ctx context.Context, e *entry, r object.Range, dst []byte, own *task, why error, failed []error) error {
	k, width := int(e.m.Policy.K), e.m.Policy.Width()
	g := &gathering{
		by: rd, e: e, r: r, tried: make([]bool, width), asked: make([]*fleet.Disk, width), failed: failed,
		results: make(chan *task, width),
	}
	g.failed[r.Fragment] = why
	g.tried[r.Fragment] = true
	defer g.release()
	var ownDone <-chan struct{}
	if own != nil {
		ownDone = own.done
	}
	g.start(ctx, k)
	patience := time.NewTimer(rd.fleet.Patience(int(r.Len)))
	defer patience.Stop()
	var silent time.Time // since when no disk that is waited for answers; zero: one does
	for len(g.good) < k {
		if g.waiting == 0 && g.start(ctx, k-len(g.good)) == 0 && ownDone == nil {
			return g.lacking(ctx)
		}
		select {
		case t := <-g.results:
			g.take(ctx, t, k)
		case <-ownDone:
			if own.err == nil {
				copy(dst, own.buf)
				return nil
			}
			ownDone = nil
			rd.report(e, r, own.err)
			g.failed[r.Fragment] = own.err
		case <-patience.C:
			// The disks that were asked may be late too: others are asked in their place.
			switch begun := g.start(ctx, g.waiting); {
			case begun > 0 || g.answers() || ownDone != nil && rd.answers(e, r):
				silent = time.Time{}
			case silent.IsZero():
				silent = time.Now()
			case time.Since(silent) >= silentPatience:
				return g.lacking(ctx)
			}
			patience.Reset(rd.fleet.Patience(int(r.Len)))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	from, parts := make([]object.Range, k), make([][]byte, k)
	for i, t := range g.good {
		from[i], parts[i] = t.r, t.buf
	}
	if err := object.Recover(dst, e.m, r, from, parts); err != nil {
		return err
	}
	rd.counts.degraded.Add(1)
	rd.toCache(e, r, dst, nil)
	return nil
}

// answers reports whether a disk that is waited for answers.
func (g *gathering) answers() bool {
	for _, d := range g.asked {
		if d != nil && d.Silent() == nil {
			return true
		}
	}
	return false
}

// lacking is why the range cannot be made.
func (g *gathering) lacking(ctx context.Context) error {
	for i, d := range g.asked {
		if d != nil {
			g.failed[i] = silentNow(d)
		}
	}
	return g.by.lacking(ctx, g.e, g.r, g.failed)
}

// take takes the result of a task.
func (g *gathering) take(ctx context.Context, t *task, k int) {
	g.waiting--
	g.asked[t.r.Fragment] = nil
	if t.err == nil {
		if len(g.good) < k {
			g.good = append(g.good, t)
			return
		}
		t.release()
		return
	}
	g.failed[t.r.Fragment] = t.err
	g.by.report(g.e, t.r, t.err)
	t.release()
	g.start(ctx, k-len(g.good)-g.waiting)
}

// release gives back the memory of what has been read. Reads under way keep theirs until
// they have ended.
func (g *gathering) release() {
	for _, t := range g.good {
		t.release()
	}
}

// start begins to read the range of up to n fragments that were not tried yet, and returns
// how many. Disks that are well come before slow ones, those before disks that do not
// answer, and data before parity.
func (g *gathering) start(ctx context.Context, n int) (begun int) {
	for _, worst := range []fleet.State{fleet.Well, fleet.Slow, fleet.Failing} {
		for i := range g.tried {
			if begun >= n {
				return begun
			}
			if g.tried[i] {
				continue
			}
			d, err := g.by.diskOf(g.e, g.r.Chunk, i)
			if err != nil || rank(d) > worst || rank(d) == fleet.Failing && notAsked(d) {
				continue
			}
			g.tried[i], g.asked[i] = true, d
			begun++
			g.waiting++
			other := g.r
			other.Fragment = i
			t := g.by.newTask(g.e, other, 1)
			t.buf = g.by.buffers.take(int(g.r.Len))
			go func() {
				t.run(context.WithoutCancel(ctx), d)
				g.results <- t
			}()
		}
	}
	return begun
}

// rank is how well a disk serves reads. That it takes no writes does not count.
func rank(d *fleet.Disk) fleet.State {
	if d.Silent() != nil {
		return fleet.Failing
	}
	return min(d.Condition().State, fleet.Slow)
}

// report tells of a fragment that is not what its manifest says. The error of a disk that
// does not answer says nothing of the fragment, and is not reported.
func (rd *reader) report(e *entry, r object.Range, err error) {
	if !osd.BadValue(err) && !isCorrupt(err) {
		return
	}
	f := e.m.Chunks[r.Chunk].Fragments[r.Fragment]
	rd.log.Warn("a fragment is missing or bad", "object", e.m.Name, "namespace", e.m.Namespace, "fragment", e.m.Key(r.Chunk, r.Fragment), "disk", f.OSD, "err", err)
	rd.bad(Bad{Namespace: e.m.Namespace, Name: e.m.Name, Object: e.m.Object, Chunk: r.Chunk, Fragment: r.Fragment, OSD: f.OSD, Err: err})
}
