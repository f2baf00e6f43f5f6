package fusefs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// usersMax is the number of users that are named.
const usersMax = 16

// users names whoever keeps a mount busy: processes that have something of it open,
// mapped, or as the directory they are in, and loop devices over its files. Only root
// sees the processes of other users.
func users(dir string) []string {
	var found []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		if file := usedBy(p, dir); file != "" && filepath.Base(p) != strconv.Itoa(os.Getpid()) {
			name, _ := os.ReadFile(filepath.Join(p, "comm"))
			found = append(found, fmt.Sprintf("process %s (%s) uses %s", filepath.Base(p), bytes.TrimSpace(name), file))
		}
	}
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, l := range loops {
		file, _ := os.ReadFile(l)
		if name := strings.TrimSuffix(string(bytes.TrimSpace(file)), " (deleted)"); below(dir, name) {
			found = append(found, fmt.Sprintf("/dev/%s is a loop device over %s", filepath.Base(filepath.Dir(filepath.Dir(l))), name))
		}
	}
	slices.Sort(found)
	if n := len(found); n > usersMax {
		found = append(found[:usersMax], fmt.Sprintf("%d more", n-usersMax))
	}
	return found
}

// usedBy returns a path below dir that a process uses, "" if there is none.
func usedBy(process, dir string) string {
	links := []string{filepath.Join(process, "cwd"), filepath.Join(process, "root")}
	open, _ := filepath.Glob(filepath.Join(process, "fd", "*"))
	for _, l := range append(links, open...) {
		if file, err := os.Readlink(l); err == nil && below(dir, file) {
			return file
		}
	}
	maps, err := os.Open(filepath.Join(process, "maps"))
	if err != nil {
		return ""
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		// The path is the sixth field, and may have blanks.
		if i := strings.Index(lines.Text(), " /"); i >= 0 && below(dir, lines.Text()[i+1:]) {
			return lines.Text()[i+1:]
		}
	}
	return ""
}

func below(dir, file string) bool { return file == dir || strings.HasPrefix(file, dir+"/") }
