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
// was tried was not good, nil for those that were not, nil if none was; more comes beside
// it. If the fragments that are not known to be bad would do, it is
// backend.ErrUnavailable.
func (c *Client) lacking(ctx context.Context, e *entry, r object.Range, failed []error, more ...error) error {
	left := 0
	for i, f := range e.m.Chunks[r.Chunk].Fragments {
		d := c.opt.Fleet.Disk(f.OSD)
		if f.OSD != policy.None && d != nil && (failed == nil || !isBad(ctx, d, failed[i])) {
			left++
		}
	}
	for i, err := range failed {
		if _, gone := c.diskOf(e, r.Chunk, i); gone == nil { // of those absent tells
			more = append(more, err)
		}
	}
	err := errors.Join(append(more, c.absent(e, r.Chunk))...)
	if left < int(e.m.Policy.K) {
		return err
	}
	return fmt.Errorf("%w: %w", backend.ErrUnavailable, err)
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
func (c *Client) answers(e *entry, r object.Range) bool {
	d, err := c.diskOf(e, r.Chunk, r.Fragment)
	return err == nil && d.Silent() == nil
}
