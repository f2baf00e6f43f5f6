package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/size"
)

// A first start that is cut anywhere, killed or with the power, goes on: nothing
// that it has made is taken for something that is lost. A second one says no
// flags, as nobody remembers what the first was told.
func TestFirstStartCutAnywhere(t *testing.T) {
	kinds := []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn}
	for _, backend := range []string{BackendALBA, BackendLocal} {
		rng := rand.New(rand.NewPCG(1, 1))
		start := func(fs disk.FS, kind string) error {
			dir, err := datadir.Open(fs, "/data")
			if err != nil {
				return err
			}
			h, err := openEmbedded(context.Background(), openOptions{
				fs: fs, dir: dir, writeBuffer: 64 * size.MiB, mapCache: size.MiB, uploads: 2, backend: kind, logger: quiet,
			})
			if err != nil {
				return fmt.Errorf("open: %w", err)
			}
			return (&whole{h, dir}).Close(context.Background())
		}
		mem := crashdisk.New()
		fs := faultdisk.New(mem)
		var images []*crashdisk.FS
		var mu sync.Mutex // groups and disks are made side by side
		calls := 0
		fs.Inject(faultdisk.Rule{
			Ops: faultdisk.Write | faultdisk.Datasync | faultdisk.Prewrite | faultdisk.Rename | faultdisk.SyncDir | faultdisk.Mkdir,
			Before: func(faultdisk.Op, string) {
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls < 120 || calls%7 == 0 {
					images = append(images, mem.Kill(), mem.Crash(rng, kinds[rng.IntN(len(kinds))]))
				}
			},
		})
		must(t, start(fs, backend))
		for i, image := range images {
			kind := ""
			if _, err := image.Stat("/data/backend"); backend == BackendLocal && err != nil {
				kind = BackendLocal // nothing says yet what it is to be
			}
			if err := start(image, kind); err != nil {
				t.Errorf("%s, image %d of %d: %v", backend, i, len(images), err)
			}
		}
	}
}
