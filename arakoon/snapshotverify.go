package arakoon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"time"

	"openvstorage/internal/disk"
)

// holdEvery is how often a member that fetches a snapshot says that it is needed still. Until
// it is in place: to check tens of gigabytes takes longer than unreadMost, and for as long
// nothing is read.
const holdEvery = unreadMost / 3

// hold says again and again that a snapshot of another member is needed, until ctx ends. It
// gives up when the other one has no such snapshot: what is there already may be all of it.
func (i *incoming) hold(ctx context.Context, from uint64, id SnapshotID, log *slog.Logger) {
	t := time.NewTicker(holdEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		one, stop := context.WithTimeout(ctx, holdEvery)
		err := i.opt.Fetcher.Hold(one, from, id)
		stop()
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, ErrNoSnapshot):
			log.Warn("arakoon node fetches a snapshot that is not held any more", slog.Any("error", err))
			return
		default:
			log.Warn("arakoon node cannot say that it needs a snapshot, and tries again", slog.Any("error", err))
		}
	}
}

// verify checks size and sum of each file in dir and syncs it. A file that is not good is
// removed, and named, so that the next fetch brings it again; whatever is no part of the
// snapshot is removed too.
func (i *incoming) verify(ctx context.Context, dir string, files []SnapshotFile) error {
	names, err := i.opt.FS.ReadDir(dir)
	if err != nil {
		return err
	}
	var bad []error
	for _, name := range names {
		if f, listed := fileNamed(files, name); listed {
			if err = i.check(ctx, path.Join(dir, name), f); err == nil {
				continue
			}
			if stop := ctx.Err(); stop != nil && errors.Is(err, stop) {
				return err
			}
			bad = append(bad, err)
		}
		if err := i.opt.FS.RemoveAll(path.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, f := range files {
		if _, ok := slices.BinarySearch(names, f.Name); !ok {
			bad = append(bad, fmt.Errorf("file %s of the snapshot is missing in %s", f.Name, dir))
		}
	}
	if len(bad) > 0 {
		return errors.Join(bad...)
	}
	return i.opt.FS.SyncDir(dir)
}

// check checks a file and syncs it.
func (i *incoming) check(ctx context.Context, name string, want SnapshotFile) error {
	size, sum, err := sumFile(i.opt.FS, name, func(n int) error {
		i.checked.Add(int64(n))
		return ctx.Err()
	})
	switch {
	case err != nil:
		return err
	case size != want.Size:
		return fmt.Errorf("file %s of the snapshot has %d bytes, not %d, and is fetched again", name, size, want.Size)
	case sum != want.CRC:
		return fmt.Errorf("file %s of the snapshot is damaged, its CRC is %08x, not %08x, and is fetched again", name, sum, want.CRC)
	}
	f, err := i.opt.FS.OpenFile(name, disk.Write, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Datasync(), f.Close())
}
