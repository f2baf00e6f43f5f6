package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"openvstorage/host/attach"
	"openvstorage/internal/control"
)

func (cmds vdiskCommands) attach() *cobra.Command {
	var opt control.AttachOptions
	c := &cobra.Command{
		Use:   "attach NAME",
		Short: "make a vDisk a block device of this machine, until it is detached",
		Long: `attach makes a block device of a vDisk, and prints its path. ` + "`ovs up`" + ` must run as
root. The device is of one of two kinds:

  nbd   /dev/nbdN of the kernel, whose module it loads (modprobe nbd). While
        ` + "`ovs up`" + ` is away, killed or for an upgrade, whoever uses the device waits.
  loop  /dev/loopN over the file in the mount (--mount). When ` + "`ovs up`" + ` is killed,
        a file system on it must be mounted again.

The vDisk stays attached over restarts of ` + "`ovs up`" + `, perhaps as another device:
DIR/dev/NAME is a link to the one that it has now ("/" in NAME is written %2F).`,
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: func(c *cobra.Command, args []string) error {
			if err := attach.Options(opt).Check(); err != nil {
				return usagef("%s: %w", c.CommandPath(), err)
			}
			for flag, unset := range map[string]func(){
				"block-size":        func() { opt.BlockSize = 0 },
				"connections":       func() { opt.Connections = 0 },
				"timeout":           func() { opt.Timeout = 0 },
				"reconnect-timeout": func() { opt.DeadTimeout = 0 },
			} {
				if !c.Flags().Changed(flag) {
					// A vDisk that is attached already keeps what it has; a flag that
					// was given and differs is refused.
					unset()
				}
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			at, err := client.Attach(c.Context(), args[0], opt)
			if err != nil {
				return err
			}
			showPartitions(at.Device)
			if at.Why != "" && !cmds.json {
				fmt.Fprintf(cmds.stderr, "a loop device, which does not outlive a kill of ovs up: %s\n", at.Why)
			}
			return cmds.print(at, func(w io.Writer) { fmt.Fprintln(w, at.Device) })
		},
	}
	flags := c.Flags()
	flags.BoolVar(&opt.ReadOnly, "read-only", false, "make the device read-only")
	flags.StringVar(&opt.Kind, "kind", attach.KindAuto, "`kind` of device: nbd, loop, or auto: nbd if the kernel has it")
	flags.Uint32Var(&opt.BlockSize, "block-size", attach.BlockSizeDefault, "smallest request in `bytes`, up to 4096; partition tables are in blocks of this size")
	flags.IntVar(&opt.Connections, "connections", attach.ConnectionsDefault, "nbd: `n` sockets")
	flags.DurationVar(&opt.Timeout, "timeout", attach.TimeoutDefault, "nbd: send a request on another connection after this `time`")
	flags.DurationVar(&opt.DeadTimeout, "reconnect-timeout", attach.DeadTimeoutDefault, "nbd: requests wait for an ovs up that is away for this `time`, then fail")
	return c
}

// showPartitions has the kernel read the partition table, which the kernel does when a device is
// opened for the first time. On most machines udev has opened it before. `ovs up` cannot do it: it
// would wait for itself.
func showPartitions(device string) {
	if f, err := os.Open(device); err == nil {
		_ = f.Close()
	}
}

func (cmds vdiskCommands) detach() *cobra.Command {
	force := false
	c := &cobra.Command{
		Use:   "detach NAME",
		Short: "take a vDisk's block device away",
		Long: `detach takes a vDisk's block device away. It refuses if the device is in use: the
error says by whom. With --force it goes all the same, and whoever uses it gets I/O
errors; what was written to a file system and not synced is lost.`,
		Args:              wants("NAME"),
		ValidArgsFunction: cmds.offers().names(false),
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, args []string) error {
			if err := client.Detach(c.Context(), args[0], force); err != nil {
				return err
			}
			return cmds.done("detached", args[0])
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "also if it is in use")
	return c
}

func (cmds vdiskCommands) attached() *cobra.Command {
	return &cobra.Command{
		Use:               "attached",
		Short:             "list the vDisks that are block devices of this machine",
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := client.Attached(c.Context())
			if err != nil {
				return err
			}
			return cmds.print(list, func(w io.Writer) {
				fmt.Fprintln(w, "VDISK\tKIND\tDEVICE\tLINK")
				for _, at := range list {
					device := at.Device
					if device == "" {
						device = "-"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", at.VDisk, at.Kind, device, at.Link)
				}
				for _, at := range list {
					if at.Reason != "" {
						fmt.Fprintf(w, "%s is not attached: %s\n", at.VDisk, at.Reason)
					}
				}
			})
		}),
	}
}
