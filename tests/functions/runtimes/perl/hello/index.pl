# Gets the event as JSON text, gives back text.
sub handler {
    my ($event) = @_;
    die "no way\n" if $event =~ /"fail"/;
    print "perl was here\n";
    return "Hello from Perl, " . length($event) . " bytes";
}
1;
