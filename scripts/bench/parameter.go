package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// parameter is a parameter of the kernel, "absent" where it has none.
func parameter(file string) string {
	p, err := os.ReadFile(file)
	if err != nil {
		return "absent"
	}
	return strings.TrimSpace(string(p))
}

// setParameter sets one, unless value is "", and returns what puts it back. It
// is put back however this process ends, even by SIGKILL.
func setParameter(file, value string) (restore func(), err error) {
	if value == "" {
		return func() {}, nil
	}
	k, err := newKeeper(file, parameter(file))
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

// keeper is a process that holds the former value of a parameter. It waits for
// the end of its standard input, which comes when this process closes it or is
// gone, and writes the value then.
type keeper struct {
	cmd  *exec.Cmd
	hold io.Closer
}

func newKeeper(file, value string) (*keeper, error) {
	// What ends this process by a signal to all of its terminal must not end the
	// keeper.
	cmd := exec.Command("sh", "-c", `trap '' INT TERM HUP QUIT; read -r end; printf %s "$1" >"$2"`, "keeper", value, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start what puts %s back to %s: %w", file, value, err)
	}
	return &keeper{cmd: cmd, hold: hold}, nil
}

// putBack writes the former value and says so if that fails.
func (k *keeper) putBack() {
	if err := errors.Join(k.hold.Close(), k.cmd.Wait()); err != nil {
		fmt.Fprintf(os.Stderr, "bench: put %s back to %s: %v\n", k.cmd.Args[5], k.cmd.Args[4], err)
	}
}

// haltPoll moves guest_halt_poll_ns between the settings of a measurement. With
// 0, waking an idle CPU takes 50-70 us, and with 200,000 the CPU does not go idle
// in the meantime; what costs a wakeup shows with the one, what costs CPU with
// the other.
type haltPoll struct {
	file    string
	current string
	fixed   bool
}

// newHaltPoll looks for the settings that can be had. Where there is one only,
// why says so. restore puts back what there was.
func newHaltPoll(file, governor string, wanted []string) (h *haltPoll, settings []string, why string, restore func()) {
	now := parameter(file)
	h, restore = &haltPoll{file: file, current: now, fixed: true}, func() {}
	alone := []string{now}
	switch {
	case len(wanted) == 0:
		return h, alone, "left as it is", restore
	case now == "absent":
		return h, alone, "this kernel has no such parameter", restore
	case governor != "haltpoll":
		return h, alone, "not changed: it does nothing under the idle governor " + governor, restore
	}
	restore, err := setParameter(file, wanted[0])
	if err != nil {
		return h, alone, "not changed: " + err.Error(), func() {}
	}
	h.fixed, h.current = false, wanted[0]
	return h, wanted, "", restore
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
