package osd

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Each error that callers match has its row, and says what it says however it is wrapped.
func TestBlame(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Blame
		bad  bool
	}{
		{nil, Nobody, false},
		{context.Canceled, Nobody, false},
		{context.DeadlineExceeded, Nobody, false},
		{ErrNotFound, Nobody, true},
		{&AssertError{Key: []byte("k")}, Nobody, false},
		{ErrInvalid, Nobody, true},
		{ErrCorrupt, OneValue, true},
		{ErrUnreadable, OneValue, true},
		{ErrFull, NoRoom, false},
		{ErrReadOnly, Refuses, false},
		{fmt.Errorf("%w: %w", ErrReadOnly, ErrUnreadable), Refuses, false},
		{ErrBusy, Away, false},
		{ErrUnreachable, Away, false},
		{ErrCut, Away, false},
		{ErrClosed, Away, false},
		{fmt.Errorf("%w: %w", ErrUnreachable, context.Canceled), Nobody, false},
		{unix.EMFILE, Nobody, false},
		{unix.ENFILE, Nobody, false},
		{unix.ENOMEM, Nobody, false},
		{unix.EIO, AtFault, false},
		{errors.New("another"), AtFault, false},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("disk 1: %w", err)
		}
		if got := BlameOf(err); got != c.want || BadValue(err) != c.bad {
			t.Errorf("%v: %v, of a bad value: %v; want %v, %v", c.err, got, BadValue(err), c.want, c.bad)
		}
	}
}
