package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/policy"
	"openvstorage/alba/preset"
	"openvstorage/internal/counted"
	"openvstorage/internal/mounts"
	"openvstorage/internal/size"
)

// cacheMin is the least that --cache takes, unless it is 0.
const cacheMin = 64 * size.MiB

// albaFlags are the flags of `ovs up` for the ALBA backend.
type albaFlags struct {
	asds     int
	dirs     []string
	policies []string
	preset   string
	keys     string
	cache    size.Bytes
	scrub    period

	allowUnmounted bool
}

// mountTable reads what is mounted here. A variable, so that tests can say so.
var mountTable = mounts.Read

// scrubMin is the least that --scrub-time takes, unless it is 0.
const scrubMin = time.Minute

func (f *albaFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&f.asds, "asds", 0, fmt.Sprintf("make `n` ASDs under DIR/asd, in a new data directory (default %d)", albahere.DefaultASD))
	flags.StringArrayVar(&f.dirs, "asd", nil, "make an ASD in `DIR`, the mount of a disk, instead of under the data directory; may be given again")
	flags.StringArrayVar(&f.policies, "policy", nil, "`k,m,c,x` of a new data directory: k data and m parity fragments, accepted with c, at most x on a machine; may be given again, best first (default 2,1,2,3 for three disks)")
	flags.StringVar(&f.preset, "preset", "", "`FILE` with the default preset of a new data directory, as ovs alba preset show prints one")
	flags.StringVar(&f.keys, "keys", "", "`FILE` with master keys for presets that encrypt: lines of a number and 64 hexadecimal digits")
	scrub := period(maintenance.ScrubTime)
	flags.Var(&f.scrub, "scrub-time", fmt.Sprintf("read all that is on each disk back once in this `time`, such as 10d or 36h; 0 for never (default %v)", &scrub))
	flags.Var(&f.cache, "cache", fmt.Sprintf("disk space in DIR/cache for fragments that were read, 0 for none; at least %v otherwise", cacheMin))
}

// set reports whether one was given that only a data directory with ALBA takes.
func (f *albaFlags) set() bool {
	return f.asds != 0 || len(f.dirs) > 0 || len(f.policies) > 0 || f.preset != "" || f.keys != "" || f.cache != 0 || f.scrub != 0
}

func (f *albaFlags) check(command string) error {
	switch {
	case f.asds < 0 || f.asds > albahere.MaxASDs || len(f.dirs) > albahere.MaxASDs:
		return usagef("%s: --asds: give 1 to %d", command, albahere.MaxASDs)
	case f.asds > 0 && len(f.dirs) > 0 && f.asds != len(f.dirs):
		return usagef("%s: --asds %d and %s --asd: give one of them", command, f.asds, counted.Of(len(f.dirs), "time", "times"))
	case f.scrub > 0 && time.Duration(f.scrub) < scrubMin:
		return usagef("%s: --scrub-time %v is too short; give it at least 1m, or 0", command, &f.scrub)
	case f.cache != 0 && f.cache < cacheMin:
		return usagef("%s: --cache %v is too small; give it at least %v, or 0", command, f.cache, cacheMin)
	}
	for _, text := range f.policies {
		if _, err := policy.Parse(text); err != nil {
			return usagef("%s: --policy: %w", command, err)
		}
	}
	return f.checkDirs(command)
}

// checkDirs refuses what names no directory, as an empty variable of a shell does,
// and one directory by two names: it would be one ASD.
func (f *albaFlags) checkDirs(command string) error {
	for i, dir := range f.dirs {
		if dir == "" {
			return usagef("%s: --asd: the name of the directory is empty", command)
		}
		for _, before := range f.dirs[:i] {
			if sameDir(before, dir) {
				return usagef("%s: --asd: %s and %s are one directory: give each ASD one of its own", command, before, dir)
			}
		}
	}
	return nil
}

// sameDir says whether two names lead to one directory, there or not yet.
func sameDir(a, b string) bool {
	at, err := os.Stat(a)
	bt, err2 := os.Stat(b)
	if err == nil && err2 == nil {
		return os.SameFile(at, bt)
	}
	a, err = filepath.Abs(a)
	b, err2 = filepath.Abs(b)
	return err == nil && err2 == nil && mounts.Resolve(a) == mounts.Resolve(b)
}

// options makes the backend's options of the flags.
func (f *albaFlags) options(o hostOptions) (albahere.Options, error) {
	opt := albahere.Options{
		FS: o.fs, Dir: o.dir.Path, ID: o.dir.ID, ASDs: f.asds, CacheBytes: int64(f.cache), Uploads: o.uploads, Descriptors: o.files.Segments, Logger: o.logger,
	}
	opt.Absent, opt.Resolve, opt.AllowUnmounted = mountTable().Absent, mounts.Resolve, f.allowUnmounted
	opt.Maintain.Scrub = time.Duration(f.scrub)
	for _, dir := range f.dirs {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return opt, err
		}
		opt.Dirs = append(opt.Dirs, abs)
	}
	for _, text := range f.policies {
		p, err := policy.Parse(text)
		if err != nil {
			return opt, err
		}
		opt.Policies = append(opt.Policies, p)
	}
	if f.preset != "" {
		p, err := readPreset(f.preset)
		if err != nil {
			return opt, err
		}
		opt.Preset = &p
	}
	var err error
	if f.keys != "" {
		opt.Keys, err = readKeys(f.keys)
	}
	return opt, err
}

// readPreset reads a preset that a person wrote.
func readPreset(file string) (preset.Preset, error) {
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
