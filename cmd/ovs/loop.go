package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/blockdev"
	"openvstorage/host/attach"
)

// loopCommands are the commands of `ovs loop`. `ovs up` runs them as processes of their own;
// package attach says why.
type loopCommands struct{ *app }

func (cmds loopCommands) group() *cobra.Command {
	c := group("loop", "what ovs up has a process of its own do with loop devices",
		cmds.attach(), cmds.detach(), cmds.grow())
	c.Hidden = true
	return c
}

func (cmds loopCommands) attach() *cobra.Command {
	var opt blockdev.Options
	c := &cobra.Command{
		Use: "attach FILE", Short: "make a loop device over a file", Args: wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			device, err := blockdev.Attach(args[0], opt)
			if err != nil {
				return err
			}
			return cmds.print(device, func(w io.Writer) { fmt.Fprintln(w, device) })
		},
	}
	c.Flags().StringVar(&opt.Device, "device", "", "take this `device` if it is free")
	c.Flags().BoolVar(&opt.ReadOnly, "read-only", false, "make the device read-only")
	c.Flags().Uint32Var(&opt.BlockSize, "block-size", 0, "the smallest request in `bytes`")
	return c
}

func (cmds loopCommands) detach() *cobra.Command {
	return &cobra.Command{
		Use: "detach DEVICE", Short: "take its file away from a loop device", Args: wants("DEVICE"),
		RunE: func(_ *cobra.Command, args []string) error { return blockdev.Detach(args[0]) },
	}
}

func (cmds loopCommands) grow() *cobra.Command {
	return &cobra.Command{
		Use: "grow DEVICE FILE SIZE", Short: "make a loop device as large as its file, once that has this size", Args: wants("DEVICE", "FILE", "SIZE"),
		RunE: func(c *cobra.Command, args []string) error {
			size, err := strconv.ParseInt(args[2], 10, 64)
			if err != nil {
				return usagef("%s: %w", c.CommandPath(), err)
			}
			return attach.Grow(c.Context(), args[0], args[1], size)
		},
	}
}

// loopMax bounds a run of `ovs loop`, which asks the mount. A mount that answers is much faster.
const loopMax = time.Minute

// runLoop runs `ovs loop` and returns its output. It runs this very program, also if the file
// was replaced by another release meanwhile.
func runLoop(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, loopMax)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe", append([]string{"loop"}, args...)...)
	c.Args[0] = "ovs" // as it is shown in lists of processes
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		if text := strings.TrimPrefix(strings.TrimSpace(said.String()), "ovs: "); text != "" {
			err = errors.New(text)
		}
		return "", err
	}
	return strings.TrimSpace(out.String()), nil
}
