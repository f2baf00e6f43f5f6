package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"openvstorage/alba/osd"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// What a write says of its disk: only a fault of the disk itself counts against it.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want outcome
	}{
		{nil, taken},
		{osd.ErrFull, noRoom},
		{context.Canceled, nothing},
		{context.DeadlineExceeded, nothing},
		{osd.ErrAssert, nothing},
		{osd.ErrInvalid, nothing},
		{osd.ErrCorrupt, nothing},
		{unix.EMFILE, nothing},
		{unix.ENFILE, nothing},
		{unix.ENOMEM, nothing},
		{unix.EIO, failed},
		{osd.ErrReadOnly, refuses},
		{osd.ErrNotFound, nothing},
		{osd.ErrUnreadable, nothing},
		{osd.ErrBusy, away},
		{osd.ErrUnreachable, away},
		{osd.ErrCut, away},
		{ErrNotAnswering, failed},
		{errors.New("another"), failed},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("wrapped: %w", err)
		}
		if got := outcomeOf(err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// A disk is left alone for twice as long with each failure in a row, for a minute at
// most; a write that it takes ends that, one that says nothing of it does not.
func TestRests(t *testing.T) {
	now := time.Unix(1000, 0)
	r := &record{now: func() time.Time { return now }}
	rests := func(want time.Duration) {
		t.Helper()
		if _, takes := r.takes(); takes != (want == 0) {
			t.Fatalf("it takes writes: %v", takes)
		}
		now = now.Add(want - 1)
		if _, takes := r.takes(); takes && want > 0 {
			t.Errorf("it takes writes before %v have passed", want)
		}
		now = now.Add(1)
		if _, takes := r.takes(); !takes {
			t.Errorf("it takes none after %v", want)
		}
	}
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second, time.Minute, time.Minute} {
		r.note(1, failed, unix.EIO)
		rests(want)
	}
	if why, since := r.writesFail(); !strings.Contains(why, "8 writes") || !since.Equal(time.Unix(1000, 0)) {
		t.Errorf("%q since %v", why, since)
	}
	r.note(1, nothing, context.Canceled)
	if why, _ := r.writesFail(); why == "" {
		t.Error("a write that was given up ends a row of failures")
	}
	r.note(1, taken, nil)
	if why, _ := r.writesFail(); why != "" {
		t.Errorf("it took a write, and %s", why)
	}
	r.note(1, failed, unix.EIO)
	rests(time.Second)
}

// Whatever a caller, a namespace or one value brings about, the disk goes on taking writes. One
// that cannot be reached is left alone for a second, however often that happens, and one that
// takes no writes until it says that it does.
func TestOneBadNamespacePoisonsNoDisk(t *testing.T) {
	now := time.Unix(1000, 0)
	r := &record{now: func() time.Time { return now }, usage: osd.Usage{Capacity: 1}}
	takes := func() bool { _, ok := r.takes(); return ok }
	for range 100 {
		for _, err := range []error{osd.ErrNotFound, osd.ErrAssert, osd.ErrInvalid, osd.ErrCorrupt, osd.ErrUnreadable, context.Canceled, context.DeadlineExceeded} {
			if r.note(1, outcomeOf(err), err); !takes() {
				t.Fatalf("%v: it takes no writes", err)
			}
		}
	}
	for range 10 {
		r.note(1, outcomeOf(osd.ErrUnreachable), osd.ErrUnreachable)
		if takes() {
			t.Error("it is not reached, and takes writes")
		}
	}
	now = now.Add(restMin)
	if why, _ := r.writesFail(); why != "" || !takes() {
		t.Errorf("a second after it was not reached: %q", why)
	}
	r.note(1, outcomeOf(osd.ErrReadOnly), osd.ErrReadOnly)
	if now = now.Add(time.Hour); takes() {
		t.Error("it takes no writes, and is given some")
	}
	if r.saw(osd.Usage{Capacity: 1}); !takes() {
		t.Error("it says that it takes writes again, and is given none")
	}
}

// Errors name the disk once, and the reason for which it is missing.
func TestMissingIsNamedOnce(t *testing.T) {
	f := New(nil)
	d := f.Add(7, uuid.New(), "node", "asd/7")
	moved := f.disk(8, uuid.New(), "node", "asd/8")
	for _, c := range []struct {
		d    *Disk
		set  func()
		want string
		is   error
	}{
		{moved, func() {}, "disk 8 (asd/8): disk is missing: it was not looked for yet", ErrMissing},
		{d, func() {}, "disk 7 (asd/7): disk is missing: it was not there at the start", ErrMissing},
		{d, func() { d.Detach(errors.New("pulled out")) }, "disk 7 (asd/7): disk is missing: pulled out", ErrMissing},
		{d, func() { d.Unopened(errors.New("no descriptors")) }, "disk 7 (asd/7): disk is there, and cannot be opened now: no descriptors", ErrUnopened},
	} {
		c.set()
		_, stat := c.d.Stat(context.Background(), nil)
		for what, err := range map[string]error{"Attached": c.d.Attached(), "Stat": stat, "Refresh": c.d.Refresh(context.Background())} {
			if err == nil || err.Error() != c.want || !errors.Is(err, c.is) || !errors.Is(err, ErrMissing) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if moved := f.Move(d, "asd/9"); moved.Attached().Error() != "disk 7 (asd/9): disk is there, and cannot be opened now: no descriptors" {
		t.Error(moved.Attached())
	}
}
