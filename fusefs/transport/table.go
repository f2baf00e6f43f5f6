package transport

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mountTable is the mounts of this process's namespace, a line each: its id, its
// parent's, its device's number, its root, where it is mounted, and more.
const mountTable = "/proc/self/mountinfo"

// deviceOn returns the device number of what was mounted last on a directory, "" if that
// cannot be told.
func deviceOn(dir string) (device string) {
	_ = eachMount(func(on, number string) {
		if on == dir {
			device = number
		}
	})
	return device
}

// mountedOn reports whether something with the number is mounted on a directory.
func mountedOn(dir, device string) (there bool, err error) {
	err = eachMount(func(on, number string) { there = there || on == dir && number == device })
	return there, err
}

func eachMount(fn func(on, number string)) error {
	b, err := os.ReadFile(mountTable)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return fmt.Errorf("%s: %q", mountTable, line)
		}
		fn(unescape(f[4]), f[2])
	}
	return nil
}

// unescape reads a path of the mount table, in which blanks and the like are a backslash
// and three octal digits.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
