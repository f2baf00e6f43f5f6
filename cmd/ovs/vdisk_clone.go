package main

import "github.com/spf13/cobra"

func (cmds vdiskCommands) clone() *cobra.Command {
	return &cobra.Command{
		Use:               "clone SRC[@SNAP] NEW",
		Short:             "make a vDisk that begins as a copy of another or of its snapshot",
		Example:           "  ovs vdisk clone disk1@monday disk2",
		Args:              wants("SRC[@SNAP]", "NEW"),
		ValidArgsFunction: cmds.offers().sources(),
		RunE: func(c *cobra.Command, args []string) error {
			src, snap, err := nameAndSnapshot(c.CommandPath(), args[0])
			if err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			draw, end := cmds.progress("clone " + args[0])
			v, err := client.Clone(c.Context(), src, snap, args[1], draw)
			end()
			if err != nil {
				return err
			}
			return cmds.printMade("cloned", v)
		},
	}
}
