package host

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/mounts"
	"openvstorage/internal/size"
)

// CacheMin is the least that ALBA.Cache may be, unless it is 0.
const CacheMin = 64 * size.MiB

// ALBA says how the backend of disks is made, and how it works.
type ALBA struct {
	ASDs     int      // of a new data directory, under it; 0: the default, or one for each of Dirs
	Dirs     []string // mounts of disks to make ASDs in, instead
	Policies []string // "k,m,c,x" of a new data directory, best first
	Preset   string   // file with the default preset of a new data directory
	Keys     string   // file with master keys
	Cache    size.Bytes
	Scrub    time.Duration // in which all of a disk is read back once; 0: the default; below 0: never
	// AllowUnmounted lets new ASDs be made in a directory that looks like a mount point
	// with nothing mounted.
	AllowUnmounted bool
}

// mountTable reads what is mounted on this machine. It is a variable for tests.
var mountTable = mounts.Read

// set reports whether an option was given that only a data directory with ALBA takes.
func (a ALBA) set() bool {
	return a.ASDs != 0 || len(a.Dirs) > 0 || len(a.Policies) > 0 || a.Preset != "" || a.Keys != "" || a.Cache != 0 || a.Scrub != 0
}

// options makes options of the backend from what was asked for.
func (a ALBA) options(o openOptions) (albahere.Options, error) {
	opt := albahere.Options{
		FS: o.fs, Dir: o.dir.Path, ID: o.dir.ID, ASDs: a.ASDs, CacheBytes: int64(a.Cache), Uploads: o.uploads, Descriptors: o.files.Segments, Logger: o.logger,
	}
	opt.Absent, opt.Resolve, opt.AllowUnmounted = mountTable().Absent, mounts.Resolve, a.AllowUnmounted
	opt.Maintain.Scrub = a.Scrub
	for _, dir := range a.Dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return opt, err
		}
		opt.Dirs = append(opt.Dirs, abs)
	}
	for _, text := range a.Policies {
		p, err := policy.Parse(text)
		if err != nil {
			return opt, err
		}
		opt.Policies = append(opt.Policies, p)
	}
	if a.Preset != "" {
		p, err := ReadPreset(a.Preset)
		if err != nil {
			return opt, err
		}
		opt.Preset = &p
	}
	var err error
	if a.Keys != "" {
		opt.Keys, err = readKeys(a.Keys)
	}
	return opt, err
}

// ReadPreset reads a preset that a person wrote.
func ReadPreset(file string) (preset.Preset, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return preset.Preset{}, fmt.Errorf("preset: %w", err)
	}
	p, err := preset.ParseJSON(b)
	if err != nil {
		return preset.Preset{}, fmt.Errorf("preset in %s: %w", file, err)
	}
	return p, nil
}
