package volumedriver

import (
	"context"
	"errors"
	"strings"
	"testing"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// A clone that waits for its parent says which vDisk that is, and why it is not open:
// whoever looks at the clone finds the file to mend. When the parent opens, so does the
// clone.
func TestCloneSaysWhyItsParentIsClosed(t *testing.T) {
	ctx := context.Background()
	mem := crashdisk.New()
	r, d := newRig(t, mem, modelDisk, nil)
	write(t, d, 0, 4, 1)
	must(t, d.Flush(ctx))
	parent := r.host.buffer.Dir(volumeOf(t, r, "v").id)
	if _, err := r.host.Clone(ctx, "v", "", "c", nil); err != nil {
		t.Fatal(err)
	}
	must(t, r.close())

	faults := faultdisk.New(mem)
	bad := faults.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: parent + "/...", Err: unix.EIO})
	r, err := openRig(faults, nil)
	must(t, err)
	for _, name := range []string{"v", "c"} {
		if _, _, err := r.host.OpenDevice(ctx, name); !errors.Is(err, ErrBusy) ||
			!strings.Contains(err.Error(), `"v"`) || !strings.Contains(err.Error(), unix.EIO.Error()) || !strings.Contains(err.Error(), parent) {
			t.Errorf("%s: %v", name, err)
		} else if n := strings.Count(err.Error(), "wait for it"); n != 1 {
			t.Errorf("it says %d times to wait: %v", n, err)
		}
	}
	bad.Remove()
	open(t, r.host, "v")
	holdsPattern(t, open(t, r.host, "c"), 0, 4, 1)
	must(t, r.close())
}
