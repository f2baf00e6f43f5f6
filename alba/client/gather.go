package client

import (
	"context"
	"slices"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/object"
	"openvstorage/alba/policy"
)

// gathering is a range that is made from k fragments.
type gathering struct {
	by      *reader
	e       *entry
	r       object.Range
	tried   []bool
	waiting int           // for so many tasks
	asked   []*fleet.Disk // for whose tasks, by fragment; nil: not waited for
	failed  []error       // why each was not good
	late    []bool        // whose reads were late
	results chan *task    // has room for all
	good    []*task
}

// ownRead is what became of the read of a range's own fragment.
type ownRead struct {
	task   *task // it is under way; nil: it is not
	why    error // why it cannot be read, or not soon
	passed bool  // its disk was passed over, and is asked if others are late too
}

// fromOthers is gather whose error says which range of which object cannot be read.
func (rd *reader) fromOthers(ctx context.Context, s *space, e *entry, r object.Range, dst []byte, own ownRead) error {
	err := rd.gather(ctx, e, r, dst, own, make([]error, e.m.Policy.Width()))
	if err == nil || ctx.Err() != nil {
		return err
	}
	return rd.unreadable(s, e, r, err)
}

// gather makes a range from k other fragments, or takes it from its own, if that is still being
// read or is asked after all; whichever is done first counts. failed takes why each fragment
// was not good.
func (rd *reader) gather(ctx context.Context, e *entry, r object.Range, dst []byte, own ownRead, failed []error) error {
	k, width := int(e.m.Policy.K), e.m.Policy.Width()
	g := &gathering{
		by: rd, e: e, r: r, tried: make([]bool, width), asked: make([]*fleet.Disk, width), failed: failed,
		late: make([]bool, width), results: make(chan *task, width),
	}
	g.failed[r.Fragment] = own.why
	g.tried[r.Fragment] = !own.passed
	defer g.release()
	var ownDone <-chan struct{}
	if own.task != nil {
		ownDone = own.task.done
	}
	g.start(ctx, k)
	began, patience := time.Now(), rd.fleet.Patience(int(r.Len))
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var mute time.Time // since when no disk that is waited for answers; zero: one does
	for len(g.good) < k {
		if g.waiting == 0 && g.start(ctx, k-len(g.good)) == 0 && ownDone == nil {
			return g.lacking(ctx)
		}
		select {
		case t := <-g.results:
			if t.err == nil && t.r.Fragment == r.Fragment {
				copy(dst, t.buf)
				t.release()
				return nil
			}
			g.take(ctx, t, k)
		case <-ownDone:
			if own.task.err == nil {
				copy(dst, own.task.buf)
				return nil
			}
			ownDone = nil
			rd.report(e, r, own.task.err)
			g.failed[r.Fragment] = own.task.err
		case <-timer.C:
			// The disks that were asked may be late too: others are asked in their place.
			switch begun := g.replaceLate(ctx, time.Since(began)); {
			case begun > 0 || g.answers() || ownDone != nil && rd.answers(e, r):
				mute = time.Time{}
			case mute.IsZero():
				mute = time.Now()
			case time.Since(mute) >= silentPatience:
				return g.lacking(ctx)
			}
			patience = min(2*patience, lookMost)
			timer.Reset(patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if ownDone != nil {
		own.task.d.Overtaken()
	}
	return g.recover(dst)
}

// recover makes the range from the k fragments that came.
func (g *gathering) recover(dst []byte) error {
	from, parts := make([]object.Range, len(g.good)), make([][]byte, len(g.good))
	for i, t := range g.good {
		from[i], parts[i] = t.r, t.buf
	}
	if err := object.Recover(dst, g.e.m, g.r, from, parts); err != nil {
		return err
	}
	g.by.counts.degraded.Add(1)
	g.by.toCache(g.e, g.r, dst, nil)
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
		if !g.late[t.r.Fragment] {
			t.d.InTime()
		}
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

// replaceLate notes that the disks that are waited for are late, and asks others in their place
// as far as there are any and hedges are allowed. It returns how many it has asked.
func (g *gathering) replaceLate(ctx context.Context, waited time.Duration) int {
	for i, d := range g.asked {
		if d != nil && !g.late[i] {
			g.late[i] = true
			d.Overtaken()
		}
	}
	list, n := g.candidates()
	n = min(n, g.waiting)
	if n == 0 || waited < hedgeAnyway && !g.by.hedges.take(n, waited >= lateTimes*g.by.fleet.Patience(int(g.r.Len))) {
		return 0
	}
	g.by.counts.hedgeReads.Add(uint64(n))
	return g.ask(ctx, list[:n])
}

// candidates returns the fragments that were not tried yet and whose disks may be asked, the
// best first, and how many they are.
func (g *gathering) candidates() (list [policy.MaxWidth]candidate, n int) {
	for i := range g.tried {
		if g.tried[i] {
			continue
		}
		d, err := g.by.diskOf(g.e, g.r.Chunk, i)
		if err != nil {
			continue
		}
		c := g.by.candidate(g.e, g.r, i, d)
		if c.standing == silent && notAsked(d) {
			continue
		}
		list[n] = c
		n++
	}
	slices.SortFunc(list[:n], compareCandidates)
	return list, n
}

// start begins to read the range of up to n fragments that were not tried yet, the best first,
// and returns how many.
func (g *gathering) start(ctx context.Context, n int) (begun int) {
	if n <= 0 {
		return 0
	}
	list, most := g.candidates()
	return g.ask(ctx, list[:min(n, most)])
}

// ask begins to read the range of fragments.
func (g *gathering) ask(ctx context.Context, list []candidate) int {
	for _, c := range list {
		g.tried[c.fragment], g.asked[c.fragment] = true, c.disk
		g.waiting++
		other := g.r
		other.Fragment = c.fragment
		t := g.by.newTask(g.e, other, c.disk, 1)
		t.buf = g.by.buffers.take(int(g.r.Len))
		go func() {
			t.run(context.WithoutCancel(ctx))
			g.results <- t
		}()
	}
	return len(list)
}
