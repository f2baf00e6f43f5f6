package blockdev

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is a user of a device: a mount, a process, or a device over it.
type User struct {
	What string // "it is mounted on /mnt"
	// Passing users may be gone in a moment, like a program that reads what is on a
	// new disk.
	Passing bool
}

// usersMax is the number of users that are named.
const usersMax = 16

// Users returns the users of a device and of its partitions: mounts in any namespace,
// swap, devices over it, processes that have it open, requests under way. It reads
// /sys and /proc, and never waits for the device itself.
func Users(device string) []User { return users("/", device) }

func users(root, device string) (found []User) {
	name := filepath.Base(device)
	dir := filepath.Join(root, "sys/block", name)
	dirs := []string{dir}
	if parts, err := filepath.Glob(filepath.Join(dir, name+"p*")); err == nil {
		dirs = append(dirs, parts...)
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for _, d := range dirs {
		part := filepath.Base(d)
		names[part] = true
		if n := sysfs(d, "dev"); n != "" {
			numbers[n] = true
		}
		holders, _ := filepath.Glob(filepath.Join(d, "holders", "*"))
		for _, h := range holders {
			found = append(found, User{What: fmt.Sprintf("/dev/%s is over it", filepath.Base(h))})
		}
		// A file system that was unmounted with umount -l and is in use still is
		// in no list of mounts.
		systems, _ := filepath.Glob(filepath.Join(root, "sys/fs/*", part))
		for _, s := range systems {
			found = append(found, User{What: fmt.Sprintf("%s has a file system on %s", filepath.Base(filepath.Dir(s)), part)})
		}
	}
	found = append(found, swaps(root, names)...)
	found = append(found, processes(root, names, numbers)...)
	if busy := sysfs(dir, "inflight"); strings.Trim(busy, "0 \t") != "" {
		found = append(found, User{What: "requests are under way", Passing: true})
	}
	slices.SortStableFunc(found, func(a, b User) int { return strings.Compare(a.What, b.What) })
	found = slices.Compact(found)
	if n := len(found); n > usersMax {
		found = append(found[:usersMax], User{What: fmt.Sprintf("%d more", n-usersMax)})
	}
	return found
}

func swaps(root string, names map[string]bool) (found []User) {
	text, _ := os.ReadFile(filepath.Join(root, "proc/swaps"))
	for _, line := range strings.Split(string(text), "\n") {
		if f := strings.Fields(line); len(f) > 0 && names[filepath.Base(f[0])] {
			found = append(found, User{What: "it is swap"})
		}
	}
	return found
}

// processes finds mounts, once for each namespace, and open files.
func processes(root string, names, numbers map[string]bool) (found []User) {
	seen := map[string]bool{} // namespaces of mounts
	list, _ := filepath.Glob(filepath.Join(root, "proc/[0-9]*"))
	for _, p := range list {
		pid := filepath.Base(p)
		if ns, err := os.Readlink(filepath.Join(p, "ns/mnt")); err == nil && !seen[ns] {
			seen[ns] = true
			for _, at := range mounts(filepath.Join(p, "mountinfo"), names, numbers) {
				found = append(found, User{What: "it is mounted on " + at})
			}
		}
		if opens(p, numbers) {
			found = append(found, User{What: fmt.Sprintf("process %s (%s) has it open", pid, sysfs(p, "comm")), Passing: true})
		}
	}
	return found
}

// mounts returns where the devices are mounted.
func mounts(file string, names, numbers map[string]bool) (at []string) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// ID, parent, device, root, place, options, more of them up to "-",
		// type, source, options.
		left, right, _ := strings.Cut(lines.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 2 {
			continue
		}
		if numbers[l[2]] || strings.HasPrefix(r[1], "/dev/") && names[filepath.Base(r[1])] {
			at = append(at, l[4])
		}
	}
	return at
}

// opens reports whether a process has one of the devices open. It asks only open files
// that are named like a device for their number: a file on a dead mount would not answer.
func opens(process string, numbers map[string]bool) bool {
	open, _ := filepath.Glob(filepath.Join(process, "fd", "*"))
	for _, fd := range open {
		if name, err := os.Readlink(fd); err != nil || !strings.HasPrefix(name, "/dev/") {
			continue
		}
		info, err := os.Stat(fd)
		if err != nil || info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0 {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			number := strconv.FormatUint(uint64(unix.Major(st.Rdev)), 10) + ":" + strconv.FormatUint(uint64(unix.Minor(st.Rdev)), 10)
			if numbers[number] {
				return true
			}
		}
	}
	return false
}
