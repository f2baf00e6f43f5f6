package volumedriver

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
)

// With far fewer descriptors than vDisks all are written, flushed, read and opened
// again: a vDisk that lacks one waits for a vDisk that rests, or has the others store.
// Earlier releases kept four for each vDisk ever written.
func TestManyVolumesOnFewDescriptors(t *testing.T) {
	const vdisks, files, rounds = 60, 24, 3
	ctx := t.Context()
	under := crashdisk.New()
	// Besides, 16 directories are synced, a file of the pool is written, the page
	// store has a few, and each of those who make a file has it open for a moment.
	fs := faultdisk.NewDescriptors(under, files+40)
	few := func(o *Options) { o.FS, o.OpenFiles = fs, files }
	r, err := openRig(under, few)
	must(t, err)
	name := func(i int) string { return fmt.Sprintf("v%d", i) }
	var all sync.WaitGroup
	for i := range vdisks {
		_, err := r.host.Create(ctx, name(i), modelDisk)
		must(t, err)
		d := open(t, r.host, name(i))
		all.Go(func() {
			for round := range rounds {
				if err := writeAndFlush(ctx, d, round, i); err != nil {
					t.Errorf("vDisk %d, round %d: %v", i, round, err)
					return
				}
			}
		})
	}
	all.Wait()
	for i := range vdisks {
		for round := range rounds {
			holdsPattern(t, open(t, r.host, name(i)), round*8, 4, i*10+round)
		}
	}
	if u := r.host.buffer.Usage(); u.FilesClosed == 0 || u.FilesLimit != files {
		t.Errorf("%+v", u)
	}
	if peak, refused := fs.Peak(); refused > 0 {
		t.Errorf("%d calls got EMFILE, %d were open at most", refused, peak)
	}
	must(t, r.close())
	if n := fs.Open(); n != 0 {
		t.Errorf("%d files are open after the end", n)
	}
	r, err = openRig(under, few)
	must(t, err)
	for i := range vdisks {
		for round := range rounds {
			holdsPattern(t, open(t, r.host, name(i)), round*8, 4, i*10+round)
		}
	}
	if peak, refused := fs.Peak(); refused > 0 {
		t.Errorf("%d calls got EMFILE, %d were open at most", refused, peak)
	}
	must(t, r.close())
}

func writeAndFlush(ctx context.Context, d device.Device, round, i int) error {
	if err := d.Write(ctx, []device.Span{{Off: int64(round) * 8 * 4096, Data: pattern(i*10+round, 4)}}); err != nil {
		return err
	}
	return d.Flush(ctx)
}
