# The frame protocol (docs/protocol.md) in as little Perl as it takes: one call at a time.
use strict;
use warnings;

use constant { HELLO => 1, LOAD => 2, READY => 3, INVOKE => 4, PART => 5, RESPONSE => 6, ERROR => 9, SHUTDOWN => 11, MORE => 1 };

open(my $channel, '+<&=', 3) or die "descriptor 3: $!";
binmode $channel;
$| = 1;

# Exactly so many bytes; the end of the channel is the end of the process.
sub take {
    my ($count) = @_;
    my $bytes = '';
    while (length $bytes < $count) {
        my $got = sysread $channel, $bytes, $count - length $bytes, length $bytes;
        exit 0 unless $got;
    }
    return $bytes;
}

sub receive {
    my ($magic, $type, $flags, $id, $deadline, $meta, $body) = unpack 'a4 v v Q< Q< V V', take(64);
    exit 70 if $magic ne "FAS\x01";
    return ($type, $flags, $id, take($meta), take($body));
}

sub post {
    my ($type, $id, $meta, $body) = @_;
    my $frame = pack('a4 v v Q< Q< V V x32', "FAS\x01", $type, 0, $id, 0, length $meta, length $body) . $meta . $body;
    my $at = 0;
    while ($at < length $frame) {
        $at += syswrite($channel, $frame, length($frame) - $at, $at) // exit 0;
    }
}

sub error_body {
    my ($type, $message) = @_;
    $message =~ s/[\\"\x00-\x1f]/ /g;
    return qq({"errorMessage":"$message","errorType":"$type","stackTrace":[]});
}

post(HELLO, 0, '{"protocol":1,"runtime":"perl","features":[]}', '');
my ($type, $flags, $id, $meta, $event) = receive();
exit 0 if $type == SHUTDOWN;
my ($file, $name) = $meta =~ /"handler":"([^".]+)\.([^"]+)"/;
chdir '/var/task';
my $handler = do "/var/task/$file.pl" ? main->can($name) : undef;
unless ($handler) {
    post(ERROR, 0, '', error_body('Runtime.HandlerNotFound', "no $file.pl with a sub $name: $@$!"));
    exit 1;
}
post(READY, 0, '', '');
while (1) {
    ($type, $flags, $id, $meta, $event) = receive();
    exit 0 if $type == SHUTDOWN;
    next if $type != INVOKE;
    while ($flags & MORE) {
        (my $kind, $flags, my $of, my $no_meta, my $part) = receive();
        $event .= $part;
    }
    my $result = eval { $handler->($event) };
    if ($@) { post(ERROR, $id, '', error_body('PerlError', $@)) }
    else    { post(RESPONSE, $id, '', $result) }
}
