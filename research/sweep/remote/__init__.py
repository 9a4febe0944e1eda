"""Groups that workers train in other processes or on other machines. Start with `dispatch.send_out`."""
