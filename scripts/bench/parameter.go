package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// parameter is a parameter of the kernel, "absent" where it has none.
func parameter(file string) string {
	p, err := os.ReadFile(file)
	if err != nil {
		return "absent"
	}
	return strings.TrimSpace(string(p))
}

// errInUse says that another measurement has set a parameter. It would put back
// what we set, and we what it set; and two of them measure each other.
var errInUse = errors.New("another measurement is running, which has set it")

// setParameter sets one, unless value is "", and returns what puts it back. It
// is put back however this process ends, even by SIGKILL.
func setParameter(file, value string) (restore func(), err error) {
	if value == "" {
		return func() {}, nil
	}
	k, err := newKeeper(file)
	if err != nil {
		return nil, err
	}
	if err := writeParameter(file, value); err != nil {
		k.putBack()
		return nil, err
	}
	return k.putBack, nil
}

func writeParameter(file, value string) error {
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		return fmt.Errorf("set a parameter of the kernel: %w", err)
	}
	return nil
}

// keeper is a process that holds the former value of a parameter, and a lock on the
// file, so that no other measurement takes our value for the former one. It writes the
// former value back when its standard input ends: when this process closes it, or is
// gone.
type keeper struct {
	cmd         *exec.Cmd
	file, value string
	hold        io.Closer
}

func newKeeper(file string) (k *keeper, err error) {
	lock, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("set a parameter of the kernel: %w", err)
	}
	defer lock.Close() // the keeper has it
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if err == unix.EWOULDBLOCK {
			err = errInUse
		}
		return nil, fmt.Errorf("set %s: %w", file, err)
	}
	k = &keeper{file: file, value: parameter(file)}
	// What ends this process by a signal to all of its terminal must not end the
	// keeper.
	k.cmd = exec.Command("sh", "-c", `trap '' INT TERM HUP QUIT; read -r end; printf %s "$1" >"$2"`, "keeper", k.value, file)
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	k.cmd.Stderr, k.cmd.ExtraFiles = os.Stderr, []*os.File{lock}
	if k.hold, err = k.cmd.StdinPipe(); err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start what puts %s back to %s: %w", file, k.value, err)
	}
	return k, nil
}

// putBack writes the former value and says so if that fails.
func (k *keeper) putBack() {
	if err := errors.Join(k.hold.Close(), k.cmd.Wait()); err != nil {
		fmt.Fprintf(os.Stderr, "bench: put %s back to %s: %v\n", k.file, k.value, err)
	}
}

// haltPoll moves guest_halt_poll_ns between the settings of a measurement. With 0,
// waking an idle CPU takes 50-70 us: that setting shows the cost of wakeups. With
// 200,000 the CPU does not go idle in the meantime: that setting shows the cost in CPU.
type haltPoll struct {
	file    string
	current string
	fixed   bool
}

// newHaltPoll looks for the settings that can be had. Where there is one only,
// why says so. restore puts back what there was.
func newHaltPoll(file, governor string, wanted []string) (h *haltPoll, settings []string, why string, restore func(), err error) {
	now := parameter(file)
	h, restore = &haltPoll{file: file, current: now, fixed: true}, func() {}
	switch {
	case len(wanted) == 0:
		why = "left as it is"
	case now == "absent":
		why = "this kernel has no such parameter"
	case governor != "haltpoll":
		why = "not changed: it does nothing under the idle governor " + governor
	}
	if why != "" {
		return h, []string{now}, why, restore, nil
	}
	putBack, err := setParameter(file, wanted[0])
	switch {
	case errors.Is(err, errInUse):
		return nil, nil, "", restore, err
	case err != nil:
		return h, []string{now}, "not changed: " + err.Error(), restore, nil
	}
	h.fixed, h.current = false, wanted[0]
	return h, wanted, "", putBack, nil
}

// set makes it so.
func (h *haltPoll) set(value string) error {
	if h.fixed || value == h.current {
		return nil
	}
	if err := writeParameter(h.file, value); err != nil {
		return err
	}
	h.current = value
	return nil
}
