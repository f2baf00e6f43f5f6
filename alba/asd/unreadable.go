package asd

import (
	"errors"
	"fmt"
)

// acceptName is the file by which people say that an ASD is to go on without what
// its medium does not give.
const acceptName = "accept-unreadable"

// lacks notes what the medium does not give, in which so many batches may be.
//
// Values that cannot be read are the reader's affair. Batches that cannot be read
// while the ASD is opened may have put, replaced or deleted any key. Until they
// are read, or somebody has said that they are given up, the ASD takes no writes:
// no seq is used again, no checkpoint passes over them, no segment is compacted or
// retired. What has been read is served; any other key is osd.ErrUnreadable.
func (r *recovery) lacks(err error, batches uint64) {
	var u *unreadable
	errors.As(err, &u)
	if r.hole == nil {
		r.hole = u
	}
	r.floor = max(r.floor, r.last+batches)
	r.damaged(Damage{File: u.file, Offset: u.offset, Length: u.length, What: fmt.Sprintf("batches behind %d cannot be read: %v", r.last, u.cause)})
}

// accept goes on without what cannot be read, if somebody has said so: a
// checkpoint passes over it, before anything else is written. What was said
// counts once, also where all could be read.
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
