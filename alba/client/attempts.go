package client

import (
	"context"
	"slices"
	"time"

	"openvstorage/alba/manifest"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
)

// attempt is one write of a fragment to one disk. A fragment has one attempt that counts, and
// maybe others before it, on disks that it was taken from because they were late: those may
// still read its memory. What they write is garbage, which maintenance collects.
type attempt struct {
	fragment int
	disk     uint64
	began    time.Time
	ctx      context.Context
	cancel   context.CancelFunc // gives it up if its disk has not begun to write
	overdue  bool               // it is counted as that
}

// beginLocked makes the attempt that counts from now on. Its caller runs it.
func (w *chunkWrite) beginLocked(i int, number uint64) *attempt {
	a := &attempt{fragment: i, disk: number, began: time.Now()}
	a.ctx, a.cancel = context.WithCancel(w.by.life)
	w.current[i] = a
	w.running = append(w.running, a)
	if w.overdue {
		w.overdueLocked(a)
	}
	if w.over {
		a.cancel()
	}
	return a
}

func (w *chunkWrite) overdueLocked(a *attempt) {
	if !a.overdue {
		a.overdue = true
		w.by.overdue.add(a.disk, 1)
	}
}

// run writes a fragment, and then to a spare disk if that fails. Whoever starts it has it counted
// among the users of the chunk's memory and among the writes that close waits for.
func (w *chunkWrite) run(a *attempt) {
	defer w.by.late.Done()
	defer w.by.chunks.release(w.from)
	for a != nil {
		value := &w.values[a.fragment]
		err := w.writeTo(a.ctx, a.disk, w.m.Key(w.chunk, a.fragment), *value)
		if err == nil {
			err = w.unchanged(a.fragment, *value)
		}
		a = w.ended(a, err)
	}
}

// ended notes how an attempt has ended, and returns the next one of the fragment, nil if there
// is none to be begun. It is one step: nobody must see a fragment that is neither stored nor on
// its way.
func (w *chunkWrite) ended(a *attempt, err error) (next *attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.cancel()
	w.running = slices.DeleteFunc(w.running, func(o *attempt) bool { return o == a })
	if a.overdue {
		w.by.overdue.add(a.disk, -1)
	}
	i := a.fragment
	switch cur := w.current[i]; {
	case cur != a: // the fragment was taken from this disk
		if err == nil && cur != nil && w.spare.back(i, a.disk) { // and was written before the spare
			w.takenFromLocked(cur)
			w.finishLocked(i, a.disk)
		}
		return nil
	case err == nil:
		w.finishLocked(i, a.disk)
		return nil
	}
	w.errs = append(w.errs, err)
	if !w.over && w.by.life.Err() == nil {
		if number := w.spare.take(i); number != policy.None {
			return w.beginLocked(i, number)
		}
		for _, old := range w.running { // may come yet
			if old.fragment == i && w.spare.back(i, old.disk) {
				w.current[i] = old
				return nil
			}
		}
	}
	w.finishLocked(i, policy.None)
	return nil
}

// takenFromLocked lets an attempt count no more.
func (w *chunkWrite) takenFromLocked(a *attempt) {
	w.overdueLocked(a)
	a.cancel()
}

// finishLocked notes where a fragment is; policy.None: nowhere, and on no way there.
func (w *chunkWrite) finishLocked(i int, number uint64) {
	w.current[i] = nil
	w.osds[i] = number
	if number != policy.None {
		bytes := uint64(len(w.values[i].Data))
		if i < int(w.m.Policy.K) {
			w.by.counts.data.Add(bytes)
		} else {
			w.by.counts.parity.Add(bytes)
		}
		if w.stored++; w.stored == int(w.m.Policy.K) {
			w.kth = max(time.Since(w.began), 1)
		}
	}
	w.left--
	w.changed.Send()
}

// leastShare is the part of the client's patience for which a fragment is waited at least, however
// quick its disk is otherwise: 250 ms by default.
const leastShare = 4

// lateAfter decides after what time a fragment that is being written is late. usual is within
// what time its disk takes such writes (0: not known), kth how long it took until k fragments of
// the chunk were stored, and most the client's patience with the others after that. As long as
// fewer than k are stored (0) all disks may take their time: what this one takes usually counts.
func lateAfter(usual, kth, most time.Duration) time.Duration {
	if kth == 0 {
		return max(2*usual, most)
	}
	return min(max(2*usual, 2*kth, most/leastShare), kth+most)
}

// lateLocked reports whether a fragment that is being written is late.
func (w *chunkWrite) lateLocked(a *attempt) bool {
	var usual time.Duration
	if d := w.by.fleet.Disk(a.disk); d != nil {
		usual = w.by.fleet.WritesWithin(d, len(w.values[a.fragment].Data))
	}
	return time.Since(a.began) >= lateAfter(usual, w.kth, w.by.patience)
}

// moveLate takes fragments from disks that are late, or that do not answer, and gives them to
// spare disks, as many as are needed for c. It returns how many. Each costs a write more: those
// of disks that are only late have a budget, so that a slow system is not made slower.
func (w *chunkWrite) moveLate() (moved int) {
	for i := range w.m.Policy.Width() {
		if !w.needed() {
			break
		}
		if w.moveOne(i) {
			moved++
		}
	}
	return moved
}

// needed reports whether the fragments that are stored, and those on disks that are in time, are
// fewer than c.
func (w *chunkWrite) needed() bool {
	p := w.progress()
	return p.done+p.inTime < int(w.m.Policy.C)
}

// moveOne gives a fragment to a spare disk if its own is late or does not answer.
func (w *chunkWrite) moveOne(i int) bool {
	if !w.by.chunks.again(w.from, w) { // all is written
		return false
	}
	w.by.late.Add(1)
	if next := w.next(i); next != nil {
		go w.run(next)
		return true
	}
	w.by.chunks.release(w.from)
	w.by.late.Done()
	return false
}

func (w *chunkWrite) next(i int) *attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.current[i]
	if a == nil || w.over {
		return nil
	}
	d := w.by.fleet.Disk(a.disk)
	hangs := d != nil && d.Silent() != nil
	if !hangs && !w.lateLocked(a) || !hangs && !w.by.moves.take(1, true) {
		return nil
	}
	number := w.spare.move(i)
	if number == policy.None {
		return nil
	}
	w.by.counts.moved.Add(1)
	if d != nil {
		d.WriteLate()
	}
	w.takenFromLocked(a)
	return w.beginLocked(i, number)
}

// fragmentValue is a fragment as it is written.
func fragmentValue(m *manifest.Manifest, chunk, i int, from *coded) osd.Value {
	return osd.Value{
		Data: from.Shards[i], CRCs: from.CRCs[i], Epoch: m.Epoch,
		Seed: manifest.Seed(m.Object, uint32(chunk), uint32(i)),
	}
}
