package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/scripts/cpu"
)

// Parameters of the kernel that figures depend on.
const (
	haltPollFile = "/sys/module/haltpoll/parameters/guest_halt_poll_ns"
	fuseRingFile = "/sys/module/fuse/parameters/enable_uring"
	governorFile = "/sys/devices/system/cpu/cpuidle/current_governor"
)

// stolen is the share of the time since before that the hypervisor took.
func stolen(before, after cpu.Times) float64 {
	since := after.Sub(before)
	return float64(since.Stolen) / float64(max(cpu.Tick, since.Total))
}

// idleBusy is the share of the processors that is in use while the bench does
// nothing: what else runs here.
func idleBusy() float64 {
	before, err1 := cpu.Machine()
	time.Sleep(500 * time.Millisecond)
	after, err2 := cpu.Machine()
	if err1 != nil || err2 != nil {
		return 0
	}
	since := after.Sub(before)
	return float64(since.Busy) / float64(max(cpu.Tick, since.Total))
}

// settle writes out what earlier runs left dirty.
func settle() { unix.Sync() }

// dropCaches empties the page cache. It needs root.
func dropCaches() error {
	settle()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
