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
	"openvstorage/host"
	"openvstorage/internal/mounts"
)

// scrubMin is the least that --scrub-time takes, unless it is 0.
const scrubMin = time.Minute

func (f *upFlags) addALBA(flags *pflag.FlagSet) {
	flags.IntVar(&f.ALBA.ASDs, "asds", 0, fmt.Sprintf("make `n` ASDs under DIR/asd, in a new data directory (default %d)", albahere.DefaultASD))
	flags.StringArrayVar(&f.ALBA.Dirs, "asd", nil, "make an ASD in `DIR`, the mount of a disk, instead of under the data directory; may be given again")
	flags.StringArrayVar(&f.ALBA.Policies, "policy", nil, "`k,m,c,x` of a new data directory: k data and m parity fragments, accepted with c, at most x on a machine; may be given again, best first (default 2,1,2,3 for three disks)")
	flags.StringVar(&f.ALBA.Preset, "preset", "", "`FILE` with the default preset of a new data directory, as ovs alba preset show prints one")
	flags.StringVar(&f.ALBA.Keys, "keys", "", "`FILE` with master keys for presets that encrypt: lines of a number and 64 hexadecimal digits")
	scrub := period(maintenance.ScrubTime)
	flags.Var(&f.scrub, "scrub-time", fmt.Sprintf("read all that is on each disk back once in this `time`, such as 10d or 36h; 0 for never (default %v)", &scrub))
	flags.Var(&f.ALBA.Cache, "cache", fmt.Sprintf("disk space in DIR/cache for fragments that were read, 0 for none; at least %v otherwise", host.CacheMin))
}

func (f *upFlags) checkALBA(command string) error {
	switch {
	case f.ALBA.ASDs < 0 || f.ALBA.ASDs > albahere.MaxASDs || len(f.ALBA.Dirs) > albahere.MaxASDs:
		return usagef("%s: --asds: give 1 to %d", command, albahere.MaxASDs)
	case f.ALBA.ASDs > 0 && len(f.ALBA.Dirs) > 0 && f.ALBA.ASDs != len(f.ALBA.Dirs):
		return usagef("%s: --asds %d and %d times --asd: give one of them", command, f.ALBA.ASDs, len(f.ALBA.Dirs))
	case f.scrub > 0 && time.Duration(f.scrub) < scrubMin:
		return usagef("%s: --scrub-time %v is too short; give it at least 1m, or 0", command, &f.scrub)
	case f.ALBA.Cache != 0 && f.ALBA.Cache < host.CacheMin:
		return usagef("%s: --cache %v is too small; give it at least %v, or 0", command, f.ALBA.Cache, host.CacheMin)
	}
	for _, text := range f.ALBA.Policies {
		if _, err := policy.Parse(text); err != nil {
			return usagef("%s: --policy: %w", command, err)
		}
	}
	return f.checkDirs(command)
}

// checkDirs refuses an empty name, which an unset variable of a shell leaves, and two names of one
// directory, which would be one ASD.
func (f *upFlags) checkDirs(command string) error {
	for i, dir := range f.ALBA.Dirs {
		if dir == "" {
			return usagef("%s: --asd: the name of the directory is empty", command)
		}
		for _, before := range f.ALBA.Dirs[:i] {
			if sameDir(before, dir) {
				return usagef("%s: --asd: %s and %s are one directory: give each ASD one of its own", command, before, dir)
			}
		}
	}
	return nil
}

// sameDir says whether two names lead to one directory, which need not exist yet.
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
