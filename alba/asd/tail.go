package asd

import (
	"fmt"

	"openvstorage/alba/osd"
)

// finish brings the ASD from what was scanned to where it can be written to: it cuts
// the tail at the first bad batch, writes the rest again, and reports what is lost.
func (r *recovery) finish() error {
	r.log.resume(r.durable)
	r.contents.resume(r.durable)
	if err := r.cutTail(); err != nil {
		return err
	}
	r.log.used(r.contents.highest()) // the checkpoint may speak of a segment that is gone
	switch {
	case r.hole != nil && !r.accepting:
		r.contents.setUnread(r.hole)
		r.showTail(fmt.Errorf("%w; if that lasts, replace the disk, or make the file %s to go on without what lies there", r.hole, r.dir.join(acceptName)))
	case len(r.tail) > 0:
		if err := r.writeTail(); err != nil {
			r.showTail(err)
		}
	}
	r.contents.cut()
	r.log.used(r.contents.highest())
	r.reportLost()
	if r.health.readOnly() != nil {
		return nil
	}
	// Numbers that may have been used in what cannot be read are not used again.
	if r.floor > r.contents.newest() {
		r.log.resume(r.floor)
		r.contents.resume(r.floor)
	}
	return r.accept()
}

// cutTail cuts the tail where it is not whole: such a batch was not finished.
func (r *recovery) cutTail() error {
	for i, p := range r.tail {
		err := p.Err
		if p.Seq != r.durable+1+uint64(i) {
			err = fmt.Errorf("%w: batch %d follows %d", ErrFormat, p.Seq, r.durable+uint64(i))
		}
		for j := 0; err == nil && j < len(p.Entries); j++ {
			err = p.Check(j)
		}
		switch {
		case err == nil:
			continue
		case isUnreadable(err):
			// The batch may have been whole, and acknowledged.
			r.noteUnreadable(err, 0)
			r.floor = max(r.floor, r.last)
		case !isDamage(err):
			return err
		}
		r.dir.log.Info("asd: an unfinished batch is cut", "asd", r.dir.id, "file", p.segment.path, "offset", p.Offset, "why", err)
		r.tail = r.tail[:i]
		break
	}
	return nil
}

// reportLost reports the keys whose segments are gone.
func (r *recovery) reportLost() {
	for n, keys := range r.contents.countAbsent() {
		r.damaged(Damage{File: r.dir.join(segmentName(n)), What: fmt.Sprintf("the segment is missing or unreadable; %d keys are in it", keys)})
	}
}

// writeTail writes the tail again, to a new segment that gets its name when it has all
// of it. To sync the file where the tail is would prove nothing: if an earlier sync has
// failed, in this process or another, the next one succeeds all the same (rule P6). On a
// disk without room the tail goes to the reserve.
func (r *recovery) writeTail() error {
	err := r.copyTail(false)
	if isNoRoom(err) && r.health.readOnly() == nil {
		r.log.seal()
		r.log.resume(r.durable)
		if again := r.copyTail(true); again == nil {
			return nil
		}
	}
	if err != nil {
		r.log.seal()
		return fmt.Errorf("the last batches cannot be written again: %w", err)
	}
	return nil
}

// showTail makes the ASD read-only, with the tail in the index. The tail may have been
// acknowledged, so it is served; the medium may not have it, so nothing is built on it.
// The next Open tries again.
func (r *recovery) showTail(why error) {
	r.health.fail(why)
	for _, p := range r.tail {
		r.contents.enter(p.segment, p.Record)
	}
}

func (r *recovery) copyTail(useReserve bool) error {
	batches := make([]*batch, len(r.tail))
	for i, p := range r.tail {
		b := &batch{}
		b.reset()
		for j := range p.Entries {
			e := &p.Entries[j]
			var v osd.Value
			if !e.Delete {
				var err error
				if v, err = p.s.value(e, nil); err != nil {
					return err
				}
			}
			b.add(entry{Key: e.Key, Delete: e.Delete, Size: e.Size, Seed: e.Seed, Epoch: e.Epoch, Since: e.Since}, v)
		}
		if err := r.log.tryAppend(b, useReserve); err != nil {
			return err
		}
		batches[i] = b
	}
	if err := r.log.sync(); err != nil {
		return err
	}
	for _, b := range batches {
		r.log.publish(b)
	}
	return nil
}
