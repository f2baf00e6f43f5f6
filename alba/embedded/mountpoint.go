package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"openvstorage/internal/disk"
)

// ErrUnmounted is matched by the error of Open, and of CheckPlace, for a directory
// of a new ASD that looks like a mount point with nothing mounted.
var ErrUnmounted = errors.New("it looks like a mount point, and nothing is mounted there")

// conventional are directories in which only mount points should be (FHS 3.0).
var conventional = []string{"/mnt", "/media", "/run/media"}

// CheckPlace refuses a directory for a new ASD that looks like a mount point with
// nothing mounted: what is written there is on the disk below, fails with that, and
// is out of sight as soon as something is mounted. It also tells, in the log, of
// directories that share a file system with the data directory or with other ASDs.
// Directories in the data directory are nobody's mount points.
func (b *Backend) CheckPlace(dir string) error {
	if dir == "" || !path.IsAbs(b.endpoint(dir)) {
		return nil
	}
	if b.opt.Absent != nil {
		point, by, ok, err := b.absent(dir)
		if err != nil {
			return err
		}
		if ok {
			return fmt.Errorf("%w: %s (%s is in %s): mount it, or say that it is meant so with --allow-unmounted", ErrUnmounted, dir, point, by)
		}
	}
	on, known := b.fileSystem(dir)
	if !known {
		return nil
	}
	root, _ := b.fileSystem("/")
	real := dir
	if b.opt.Resolve != nil {
		real = b.opt.Resolve(dir)
	}
	for _, c := range conventional {
		if on == root && strings.HasPrefix(real, c+"/") {
			return fmt.Errorf("%w: %s (%s is for mounts, and it is on the file system of /): mount its disk, or say that it is meant so with --allow-unmounted", ErrUnmounted, dir, c)
		}
	}
	if with := b.sharers(dir, on); len(with) > 0 {
		b.opt.Logger.Warn("a directory for an ASD shares its file system: they have its room together, and are lost together; give each ASD the mount of a disk of its own",
			"dir", dir, "with", with)
	}
	return nil
}

// absent asks Options.Absent, which follows links in a directory that may be on a disk
// that hangs.
func (b *Backend) absent(dir string) (point, by string, ok bool, err error) {
	err = b.aside(context.Background(), dir, func(disk.FS) error {
		point, by, ok = b.opt.Absent(dir)
		return nil
	})
	if err != nil { // it may be asking still
		return "", "", false, err
	}
	return point, by, ok, nil
}

// sharers are the directories that are on a file system besides one.
func (b *Backend) sharers(dir string, on uint64) (with []string) {
	others := []string{"/", b.opt.Dir}
	others = append(others, b.opt.Dirs...)
	for _, d := range b.fleet.All() {
		if d.Missing() == nil {
			others = append(others, b.path(d.Place))
		}
	}
	slices.Sort(others)
	for _, other := range slices.Compact(others) {
		if other == dir {
			continue
		}
		if it, known := b.fileSystem(other); known && it == on {
			with = append(with, other)
		}
	}
	return with
}

// fileSystem identifies that of a directory, or of where it would be made.
func (b *Backend) fileSystem(dir string) (id uint64, known bool) {
	for {
		var u disk.Usage
		err := b.aside(context.Background(), dir, func(fsys disk.FS) (err error) {
			u, err = fsys.Statfs(dir)
			return err
		})
		if err == nil {
			return u.ID, u.ID != 0
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == path.Dir(dir) {
			return 0, false
		}
		dir = path.Dir(dir)
	}
}
