package asd

import (
	"errors"
	"fmt"
)

// acceptName is a file that an operator makes: the next Open goes on without what the
// medium does not give.
const acceptName = "accept-unreadable"

// noteUnreadable notes bytes that the medium does not give. So many batches may be in
// them, which may have put, replaced or deleted any key. Values that cannot be read are
// noticed by whoever reads them, not here.
//
// Until the batches are read, or an operator gives them up, the ASD takes no writes: no
// seq is used again, no checkpoint covers them, no segment is compacted or retired. What
// was read is served; any other key is osd.ErrUnreadable.
func (r *recovery) noteUnreadable(err error, batches uint64) {
	var u *unreadable
	errors.As(err, &u)
	if r.hole == nil {
		r.hole = u
	}
	r.floor = max(r.floor, r.last+batches)
	r.damaged(Damage{File: u.file, Offset: u.offset, Length: u.length, What: fmt.Sprintf("batches behind %d cannot be read: %v", r.last, u.cause)})
}

// accept goes on without what cannot be read, if an operator has said so: a checkpoint
// that covers it is written before anything else. The operator's word counts for one
// Open, even if that could read everything.
func (r *recovery) accept() error {
	if !r.accepting {
		return nil
	}
	if r.hole != nil {
		if err := r.checkpoints.write(); err != nil {
			return err
		}
	}
	if err := r.dir.fs.Remove(r.dir.join(acceptName)); err != nil {
		return err
	}
	return r.dir.sync()
}
