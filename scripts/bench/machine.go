package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Parameters of the kernel that figures depend on.
const (
	haltPollFile = "/sys/module/haltpoll/parameters/guest_halt_poll_ns"
	fuseRingFile = "/sys/module/fuse/parameters/enable_uring"
	governorFile = "/sys/devices/system/cpu/cpuidle/current_governor"
)

// cpu is the first line of /proc/stat, in ticks.
type cpu struct{ busy, stolen, total int64 }

func readCPU() (cpu, error) {
	p, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpu{}, err
	}
	line, _, _ := strings.Cut(string(p), "\n")
	var c cpu
	for i, field := range strings.Fields(line)[1:] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return cpu{}, fmt.Errorf("/proc/stat: %w", err)
		}
		if i >= 8 { // guest time is counted as user time already
			break
		}
		c.total += n
		switch i {
		case 3, 4: // idle, waiting for I/O
		case 7:
			c.stolen += n
		default:
			c.busy += n
		}
	}
	return c, nil
}

// steal is the share of the time since before that the hypervisor took.
func (c cpu) steal(before cpu) float64 {
	return float64(c.stolen-before.stolen) / max(1, float64(c.total-before.total))
}

// idleBusy is the share of the processors that is in use while the bench does
// nothing: what else runs here.
func idleBusy() float64 {
	before, err1 := readCPU()
	time.Sleep(500 * time.Millisecond)
	after, err2 := readCPU()
	if err1 != nil || err2 != nil {
		return 0
	}
	return float64(after.busy-before.busy) / max(1, float64(after.total-before.total))
}

// settle writes out what earlier runs left dirty.
func settle() { unix.Sync() }

// dropCaches empties the page cache. It needs root.
func dropCaches() error {
	settle()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
