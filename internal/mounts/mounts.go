// Package mounts finds directories on which something should be mounted and is not.
// What is written to such a directory is on the disk below, and out of sight as soon as
// something is mounted.
package mounts

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Table holds what is mounted on a machine, and what should be mounted.
type Table struct {
	Mounted map[string]bool   // mount points
	Planned map[string]string // mount points that somebody wrote down, and where
}

// Files that Read reads.
const (
	mountInfo  = "/proc/self/mountinfo"
	fstab      = "/etc/fstab"
	mountUnits = "/etc/systemd/system/*.mount"
)

// Read returns the table of this machine. It leaves out what it cannot read: no
// operation should be refused for that.
func Read() Table {
	t := Table{Mounted: make(map[string]bool), Planned: make(map[string]string)}
	info, err := os.ReadFile(mountInfo)
	if err != nil {
		return t // without what is mounted nothing can be said
	}
	t.addMountInfo(info)
	if table, err := os.ReadFile(fstab); err == nil {
		t.addFstab(table)
	}
	units, _ := filepath.Glob(mountUnits)
	for _, name := range units {
		if unit, err := os.ReadFile(name); err == nil {
			t.addUnit(name, unit)
		}
	}
	return t
}

// addMountInfo enters what is mounted: the fifth field of each line is the mount point.
func (t Table) addMountInfo(b []byte) {
	for line := range lines(b) {
		if f := strings.Fields(line); len(f) > 4 {
			t.Mounted[unescape(f[4])] = true
		}
	}
}

// addFstab enters the second field of each line, see fstab(5).
func (t Table) addFstab(b []byte) {
	for line := range lines(b) {
		if f := strings.Fields(line); len(f) > 1 && !strings.HasPrefix(f[0], "#") {
			t.plan(unescape(f[1]), fstab)
		}
	}
}

// addUnit enters the mount point of a mount unit, see systemd.mount(5).
func (t Table) addUnit(name string, b []byte) {
	for line := range lines(b) {
		if where, ok := strings.CutPrefix(strings.TrimSpace(line), "Where="); ok {
			t.plan(strings.TrimSpace(where), name)
		}
	}
}

func (t Table) plan(point, by string) {
	if filepath.IsAbs(point) && t.Planned[filepath.Clean(point)] == "" {
		t.Planned[filepath.Clean(point)] = by
	}
}

// Absent looks for the mount point at or above dir, an absolute path, on which
// something should be mounted and is not. A mount below that point ends the search.
// Absent returns that mount point, and by, the place where the mount is declared.
func (t Table) Absent(dir string) (point, by string, ok bool) {
	if len(t.Mounted) == 0 {
		return "", "", false
	}
	for _, at := range []string{filepath.Clean(dir), Resolve(dir)} {
		for ; at != "/" && at != "."; at = filepath.Dir(at) {
			if t.Mounted[at] {
				break // what is above it does not matter
			}
			if by := t.Planned[at]; by != "" {
				return at, by, true
			}
		}
	}
	return "", "", false
}

// Resolve follows the symbolic links of the part of dir that exists.
func Resolve(dir string) string {
	dir = filepath.Clean(dir)
	real, err := filepath.EvalSymlinks(dir)
	switch {
	case err == nil:
		return real
	case errors.Is(err, fs.ErrNotExist) && dir != "/" && dir != ".":
		return filepath.Join(Resolve(filepath.Dir(dir)), filepath.Base(dir))
	}
	return dir
}

func lines(b []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		s := bufio.NewScanner(bytes.NewReader(b))
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			if !yield(s.Text()) {
				return
			}
		}
	}
}

// unescape reads the octal escapes of blanks in both files.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
