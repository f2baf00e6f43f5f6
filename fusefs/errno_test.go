package fusefs

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

func TestErrnoTable(t *testing.T) {
	for _, row := range errnos {
		if got := errnoOf(fmt.Errorf("vDisk a: %w", row.err)); got != row.errno {
			t.Errorf("%v: %v, want %v", row.err, got, row.errno)
		}
	}
	if got := errnoOf(nil); got != 0 {
		t.Errorf("no error: %v", got)
	}
	for _, err := range []error{errors.New("halted"), fmt.Errorf("of a disk: %w", syscall.ENOTTY)} {
		if got := errnoOf(err); got != syscall.EIO {
			t.Errorf("%v: %v, want EIO", err, got)
		}
	}
}
