package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strings"

	"openvstorage/alba/fleet"
	"openvstorage/internal/disk"
)

// ErrUnmounted is matched by the error of Open, and of CheckPlace, for a directory
// of a new ASD that looks like a mount point with nothing mounted.
var ErrUnmounted = errors.New("it looks like a mount point, and nothing is mounted there")

// conventional are directories in which only mount points should be (FHS 3.0).
var conventional = []string{"/mnt", "/media", "/run/media"}

// mountCheck judges directories for new ASDs by what is mounted there.
type mountCheck struct {
	layout
	given   []string // Options.Dirs
	absent  func(dir string) (point, by string, ok bool)
	resolve func(dir string) string
	fleet   *fleet.Fleet
	errands *errands
	logger  *slog.Logger
}

// check refuses a directory for a new ASD that looks like a mount point with nothing
// mounted. What is written there lands on the disk below and fails with that disk, and
// a later mount hides it. check also logs a directory that shares its file system with
// the data directory or with other ASDs. A directory in the data directory is never
// refused.
func (m *mountCheck) check(dir string) error {
	if dir == "" || !path.IsAbs(m.endpoint(dir)) {
		return nil
	}
	if m.absent != nil {
		point, by, ok, err := m.askAbsent(dir)
		if err != nil {
			return err
		}
		if ok {
			return fmt.Errorf("%w: %s (%s is in %s): mount it, or say that it is meant so with --allow-unmounted", ErrUnmounted, dir, point, by)
		}
	}
	on, known := m.fileSystem(dir)
	if !known {
		return nil
	}
	root, _ := m.fileSystem("/")
	real := dir
	if m.resolve != nil {
		real = m.resolve(dir)
	}
	for _, c := range conventional {
		if on == root && strings.HasPrefix(real, c+"/") {
			return fmt.Errorf("%w: %s (%s is for mounts, and it is on the file system of /): mount its disk, or say that it is meant so with --allow-unmounted", ErrUnmounted, dir, c)
		}
	}
	if with := m.sharers(dir, on); len(with) > 0 {
		m.logger.Warn("a directory for an ASD shares its file system: they have its room together, and are lost together; give each ASD the mount of a disk of its own",
			"dir", dir, "with", with)
	}
	return nil
}

// askAbsent asks Options.Absent. It is an errand, as Absent follows the links of a
// directory that may be on a disk that hangs.
func (m *mountCheck) askAbsent(dir string) (point, by string, ok bool, err error) {
	err = m.errands.do(context.Background(), dir, func(disk.FS) error {
		point, by, ok = m.absent(dir)
		return nil
	})
	if err != nil { // the errand may still be writing to the results
		return "", "", false, err
	}
	return point, by, ok, nil
}

// sharers are the other directories of this backend on a file system.
func (m *mountCheck) sharers(dir string, on uint64) (with []string) {
	others := []string{"/", m.dir}
	others = append(others, m.given...)
	for _, d := range m.fleet.All() {
		if m.own(d.Node) && d.Missing() == nil {
			others = append(others, m.path(d.Place))
		}
	}
	slices.Sort(others)
	for _, other := range slices.Compact(others) {
		if other == dir {
			continue
		}
		if it, known := m.fileSystem(other); known && it == on {
			with = append(with, other)
		}
	}
	return with
}

// fileSystem identifies the file system of a directory. Of one that is not there it is
// that of the closest parent that is.
func (m *mountCheck) fileSystem(dir string) (id uint64, known bool) {
	for {
		var u disk.Usage
		err := m.errands.do(context.Background(), dir, func(fsys disk.FS) (err error) {
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
