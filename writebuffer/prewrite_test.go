package writebuffer

import (
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"

	"golang.org/x/sys/unix"
)

// A file that cannot be pre-written is not tried for without end, whatever it lacks,
// and one that can be is there soon after.
func TestPrewriterRests(t *testing.T) {
	for _, errno := range []error{unix.EIO, unix.EACCES, unix.EROFS} {
		synctest.Test(t, func(t *testing.T) {
			d := faultdisk.New(crashdisk.New())
			if err := d.MkdirAll("/buffer", 0o700); err != nil {
				t.Fatal(err)
			}
			rule := d.Inject(faultdisk.Rule{Ops: faultdisk.Open, Path: "/buffer/pool/...", Err: errno})
			b, err := Open(bufferOptions(d))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := rule.Fired(); n < 10 || n > 120 {
				t.Errorf("%v: %d tries in a minute", errno, n)
			}
			rule.Remove()
			time.Sleep(2 * prewriteRest)
			synctest.Wait()
			if b.Usage().Free == 0 {
				t.Errorf("%v: nothing is pre-written afterwards", errno)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
