package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (a *app) vdiskAttach() *cobra.Command {
	readOnly := false
	c := &cobra.Command{
		Use:   "attach NAME",
		Short: "make a vDisk a block device of this machine, until it is detached",
		Long: `attach makes a block device of a vDisk: a loop device over its file in the
mount, so ` + "`ovs up`" + ` must run as root and with --mount. It prints the device.

The vDisk stays attached over restarts of ` + "`ovs up`" + `, perhaps as another device:
DIR/dev/NAME is a link to the one that it has now.`,
		Args:              wants("NAME"),
		ValidArgsFunction: a.completeNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			at, err := client.Attach(c.Context(), args[0], readOnly)
			if err != nil {
				return err
			}
			return a.print(at, func(w io.Writer) { fmt.Fprintln(w, at.Device) })
		},
	}
	c.Flags().BoolVar(&readOnly, "read-only", false, "make the device read-only")
	return c
}

func (a *app) vdiskDetach() *cobra.Command {
	return &cobra.Command{
		Use:               "detach NAME",
		Short:             "take a vDisk's block device away; one in use goes with its last user",
		Args:              wants("NAME"),
		ValidArgsFunction: a.completeNames(false),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			if err := client.Detach(c.Context(), args[0]); err != nil {
				return err
			}
			return a.done("detached", args[0])
		},
	}
}

func (a *app) vdiskAttached() *cobra.Command {
	return &cobra.Command{
		Use:               "attached",
		Short:             "list the vDisks that are block devices of this machine",
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			list, err := client.Attached(c.Context())
			if err != nil {
				return err
			}
			return a.print(list, func(w io.Writer) {
				fmt.Fprintln(w, "VDISK\tDEVICE\tLINK")
				for _, at := range list {
					device := at.Device
					if device == "" {
						device = "-"
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", at.VDisk, device, at.Link)
				}
				for _, at := range list {
					if at.Reason != "" {
						fmt.Fprintf(w, "%s is not attached: %s\n", at.VDisk, at.Reason)
					}
				}
			})
		},
	}
}
