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
func (c *Client) readRange(ctx context.Context, s *space, e *entry, r object.Range, dst []byte) error {
	if c.fromCache(e, r, dst) {
		return nil
	}
	r = c.prefer(e, r)
	d, err := c.diskOf(e, r.Chunk, r.Fragment)
	others := c.others(e, r, r.Fragment) >= int(e.m.Policy.K)
	switch {
	case err != nil:
		return c.fromOthers(ctx, s, e, r, dst, nil, err)
	case !others: // nobody else could be asked
		return c.readAlone(ctx, s, e, r, d, dst, make([]error, e.m.Policy.Width()))
	case d.Silent() != nil:
		err = d.Silent()
	case rank(d) == fleet.Slow && c.sparing.Add(1)%sampleEvery != 0:
		err = fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place)
	case d.Stuck(stuckReads):
		err = fmt.Errorf("disk %d (%s): %d reads wait for it", d.Number, d.Place, stuckReads)
	default:
		return c.readHedged(ctx, s, e, r, d, dst)
	}
	failed := make([]error, e.m.Policy.Width())
	if c.gather(ctx, e, r, dst, nil, err, failed) == nil {
		return nil
	}
	return c.readAlone(ctx, s, e, r, d, dst, failed)
}

// sampleEvery: of so many reads one goes to a disk that is slow, so that it is seen
// when it is well again.
const sampleEvery = 32

// begin starts the read of a range from its own disk.
func (c *Client) begin(ctx context.Context, e *entry, r object.Range, d *fleet.Disk) *task {
	t := c.newTask(e, r, 2)
	t.buf = c.buffers.take(int(r.Len))
	ctx = context.WithoutCancel(ctx) // its buffer must not be let go of half-way
	go func() {
		t.run(ctx, d)
		t.done <- struct{}{}
		t.release()
	}()
	return t
}

// readAlone reads a range from its disk, which is the only one that can give it.
func (c *Client) readAlone(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte, failed []error) error {
	lacks := func(err error) error {
		failed[r.Fragment] = err
		return c.unreadable(s, e, r, c.lacking(ctx, e, r, failed))
	}
	if err := d.Silent(); err != nil && notAsked(d) {
		return lacks(err)
	}
	answers := d.Answers()
	t := c.begin(ctx, e, r, d)
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
	c.report(e, r, t.err)
	return lacks(t.err)
}

// readHedged reads a range from its disk, and from others too if it is slow.
func (c *Client) readHedged(ctx context.Context, s *space, e *entry, r object.Range, d *fleet.Disk, dst []byte) error {
	t := c.begin(ctx, e, r, d)
	defer t.release()
	timer := time.NewTimer(d.Patience(int(r.Len)))
	defer timer.Stop()
	select {
	case <-t.done:
	case <-timer.C:
		c.stats.hedged.Add(1)
		return c.fromOthers(ctx, s, e, r, dst, t, fmt.Errorf("disk %d (%s) is slow", d.Number, d.Place))
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.err == nil {
		copy(dst, t.buf)
		return nil
	}
	c.report(e, r, t.err)
	return c.fromOthers(ctx, s, e, r, dst, nil, t.err)
}

// task is one read of a range from one disk.
type task struct {
	c    *Client
	e    *entry
	r    object.Range
	buf  []byte // the task's own, given back with it
	crcs []uint32
	key  []byte
	err  error
	done chan struct{}
	refs atomic.Int32
}

func (c *Client) newTask(e *entry, r object.Range, refs int32) *task {
	t, ok := c.tasks.Get().(*task)
	if !ok {
		t = &task{c: c, done: make(chan struct{}, 1)}
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
		t.c.buffers.give(t.buf)
		t.buf = nil
	}
	select { // a result that nobody waited for
	case <-t.done:
	default:
	}
	t.e = nil
	t.c.tasks.Put(t)
}

// run reads the range, checks it, and offers it to the cache.
func (t *task) run(ctx context.Context, d *fleet.Disk) {
	c := t.c
	t.key = t.e.m.Key(t.r.Chunk, t.r.Fragment).Append(t.key[:0])
	if t.err = d.ReadWaiting(ctx, t.key, t.r.Off, t.buf, t.crcs); t.err != nil {
		return
	}
	c.stats.reads.Add(1)
	c.stats.readBytes.Add(uint64(t.r.Len))
	if t.err = object.Verify(t.e.m, t.r, t.buf, t.crcs); t.err != nil {
		t.err = fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, t.err)
		return
	}
	c.toCache(t.e, t.r, t.buf, t.crcs)
}

// diskOf returns the disk that has a fragment, or why it cannot be read. It may be one
// that does not answer: that is asked last, and may yet.
func (c *Client) diskOf(e *entry, chunk, fragment int) (*fleet.Disk, error) {
	f := &e.m.Chunks[chunk].Fragments[fragment]
	if f.OSD == policy.None {
		return nil, fmt.Errorf("fragment %d is on no disk yet", fragment)
	}
	d := c.opt.Fleet.Disk(f.OSD)
	if d == nil {
		return nil, fmt.Errorf("disk %d: %w: it is lost", f.OSD, fleet.ErrMissing)
	}
	return d, d.Attached()
}

// prefer returns the range to read first: with k = 1 all fragments have the
// same bytes, and one whose disk is there will do.
func (c *Client) prefer(e *entry, r object.Range) object.Range {
	if e.m.Policy.K > 1 {
		return r
	}
	for _, worst := range []fleet.State{fleet.Well, fleet.Slow, fleet.Failing} {
		for i := range e.m.Policy.Width() {
			if d, err := c.diskOf(e, r.Chunk, i); err == nil && rank(d) <= worst {
				r.Fragment = i
				return r
			}
		}
	}
	return r
}

// others counts the fragments of a chunk, besides one, whose disks are there and
// answer.
func (c *Client) others(e *entry, r object.Range, besides int) int {
	n := 0
	for i := range e.m.Policy.Width() {
		if i == besides {
			continue
		}
		if d, err := c.diskOf(e, r.Chunk, i); err == nil && d.Silent() == nil {
			n++
		}
	}
	return n
}

// absent says which fragments of a chunk cannot be read, and why.
func (c *Client) absent(e *entry, chunk int) error {
	var errs []error
	for i := range e.m.Policy.Width() {
		if _, err := c.diskOf(e, chunk, i); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// gathering is a range that is made from k fragments.
type gathering struct {
	c       *Client
	e       *entry
	r       object.Range
	tried   []bool
	waiting int           // for so many tasks
	asked   []*fleet.Disk // for whose tasks, by fragment; nil: not waited for
	failed  []error       // why each was not good
	results chan *task    // has room for all
	good    []*task
}

// fromOthers is gather that says what cannot be read.
func (c *Client) fromOthers(ctx context.Context, s *space, e *entry, r object.Range, dst []byte, own *task, why error) error {
	err := c.gather(ctx, e, r, dst, own, why, make([]error, e.m.Policy.Width()))
	if err == nil || ctx.Err() != nil {
		return err
	}
	return c.unreadable(s, e, r, err)
}

// gather makes a range from k other fragments. own is the read of its own that is
// under way still, nil if none is: the first that is done counts. why is the reason
// why it cannot be read, or not soon.
func (c *Client) gather(ctx context.Context, e *entry, r object.Range, dst []byte, own *task, why error, failed []error) error {
	k, width := int(e.m.Policy.K), e.m.Policy.Width()
	g := &gathering{
		c: c, e: e, r: r, tried: make([]bool, width), asked: make([]*fleet.Disk, width), failed: failed,
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
	patience := time.NewTimer(c.opt.Fleet.Patience(int(r.Len)))
	defer patience.Stop()
	var silent time.Time // since when nobody is waited for who answers; zero: somebody is
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
			c.report(e, r, own.err)
			g.failed[r.Fragment] = own.err
		case <-patience.C:
			// Those that were asked may be late too: others in their place.
			switch begun := g.start(ctx, g.waiting); {
			case begun > 0 || g.answers() || ownDone != nil && c.answers(e, r):
				silent = time.Time{}
			case silent.IsZero():
				silent = time.Now()
			case time.Since(silent) >= silentPatience:
				return g.lacking(ctx)
			}
			patience.Reset(c.opt.Fleet.Patience(int(r.Len)))
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
	c.stats.degraded.Add(1)
	c.toCache(e, r, dst, nil)
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
	return g.c.lacking(ctx, g.e, g.r, g.failed)
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
	g.c.report(g.e, t.r, t.err)
	t.release()
	g.start(ctx, k-len(g.good)-g.waiting)
}

// release gives back what has been read. What is still being read is collected when
// it has been.
func (g *gathering) release() {
	for _, t := range g.good {
		t.release()
	}
}

// start begins to read the range of up to n fragments that were not tried yet, those
// of disks that are well before slow ones, and those before disks that do not
// answer; data before parity. It returns how many.
func (g *gathering) start(ctx context.Context, n int) (begun int) {
	for _, worst := range []fleet.State{fleet.Well, fleet.Slow, fleet.Failing} {
		for i := range g.tried {
			if begun >= n {
				return begun
			}
			if g.tried[i] {
				continue
			}
			d, err := g.c.diskOf(g.e, g.r.Chunk, i)
			if err != nil || rank(d) > worst || rank(d) == fleet.Failing && notAsked(d) {
				continue
			}
			g.tried[i], g.asked[i] = true, d
			begun++
			g.waiting++
			other := g.r
			other.Fragment = i
			t := g.c.newTask(g.e, other, 1)
			t.buf = g.c.buffers.take(int(g.r.Len))
			go func() {
				t.run(context.WithoutCancel(ctx), d)
				g.results <- t
			}()
		}
	}
	return begun
}

// rank is how a disk does as far as reads go: that it takes no writes is nothing to
// them.
func rank(d *fleet.Disk) fleet.State {
	if d.Silent() != nil {
		return fleet.Failing
	}
	return min(d.Condition().State, fleet.Slow)
}

// report tells of a fragment that is not what its manifest says. A disk that
// does not answer is not news of a fragment.
func (c *Client) report(e *entry, r object.Range, err error) {
	if !errors.Is(err, osd.ErrNotFound) && !errors.Is(err, osd.ErrCorrupt) && !errors.Is(err, osd.ErrUnreadable) && !errors.Is(err, osd.ErrInvalid) && !isCorrupt(err) {
		return
	}
	f := e.m.Chunks[r.Chunk].Fragments[r.Fragment]
	c.opt.Logger.Warn("a fragment is missing or bad", "object", e.m.Name, "namespace", e.m.Namespace, "fragment", e.m.Key(r.Chunk, r.Fragment), "disk", f.OSD, "err", err)
	c.opt.Bad(Bad{Namespace: e.m.Namespace, Name: e.m.Name, Object: e.m.Object, Chunk: r.Chunk, Fragment: r.Fragment, OSD: f.OSD, Err: err})
}
