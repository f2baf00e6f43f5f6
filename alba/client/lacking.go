package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/object"
	"openvstorage/alba/osd"
	"openvstorage/alba/policy"
	"openvstorage/backend"
	"openvstorage/internal/disk"
)

// A range that fewer than k disks can give now is backend.ErrUnavailable if the others
// may yet give it. It is not waited for any longer than it takes to see that: whether it
// is worth while to wait, and for how long, is for those who read to say. It is the same
// whether a disk hangs, was taken away, or was not there at the start.

// silentPatience is how long a read waits for disks that are known not to answer, and
// without which it cannot be made: it may be their writes alone that hang.
const silentPatience = 2 * time.Second

// notAsked reports whether nothing more is asked of a disk that does not answer: what is
// asked may never come back, and keeps its memory until then.
func notAsked(d *fleet.Disk) bool { return d.ReadsHang() || d.Stuck(stuckReads) }

// silentNow is why a disk was left that did not answer, whether it has since or not.
func silentNow(d *fleet.Disk) error {
	if err := d.Silent(); err != nil {
		return err
	}
	return fmt.Errorf("disk %d (%s): %w", d.Number, d.Place, fleet.ErrNotAnswering)
}

// lacking is the error of a range that cannot be made. failed is why each fragment that
// was tried was not good, nil for those that were not. If its own fragment, or k of all,
// may yet be good, it is backend.ErrUnavailable.
func (rd *reader) lacking(ctx context.Context, e *entry, r object.Range, failed []error) error {
	var why []error
	left, own := 0, false
	for i, f := range e.m.Chunks[r.Chunk].Fragments {
		d := rd.fleet.Disk(f.OSD)
		if f.OSD == policy.None || d == nil {
			continue // absent tells
		}
		err := failed[i]
		if !isBad(ctx, d, err) {
			left++
			own = own || i == r.Fragment
		}
		switch silent := d.Silent(); {
		case d.Attached() != nil: // absent tells
		case silent != nil:
			why = append(why, silent)
		case err != nil:
			why = append(why, err)
		}
	}
	err := errors.Join(append(why, rd.absent(e, r.Chunk))...)
	if !own && left < int(e.m.Policy.K) {
		return err
	}
	return lacking{err}
}

// isBad reports whether a read of a disk that failed with err says that the fragment is
// no good: it is not there, or damaged, or the medium does not give it. Of a disk that
// does not tell how full it is either that says nothing: it was pulled out, maybe.
func isBad(ctx context.Context, d *fleet.Disk, err error) bool {
	switch {
	case errors.Is(err, osd.ErrNotFound), errors.Is(err, osd.ErrCorrupt), errors.Is(err, osd.ErrInvalid), isCorrupt(err):
		return true
	case errors.Is(err, osd.ErrUnreadable), disk.CauseOf(err) == disk.BadDisk:
		return d.Attached() == nil && d.Refresh(ctx) == nil
	}
	return false
}

// answers reports whether the disk of a fragment is there and answers.
func (rd *reader) answers(e *entry, r object.Range) bool {
	d, err := rd.diskOf(e, r.Chunk, r.Fragment)
	return err == nil && d.Silent() == nil
}

// lacking is backend.ErrUnavailable, for a reason that says it all by itself: NBD
// clients are told little of a long text.
type lacking struct{ error }

func (l lacking) Unwrap() []error { return []error{backend.ErrUnavailable, l.error} }
