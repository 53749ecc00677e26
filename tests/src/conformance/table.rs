//! The checklist: what the standards and the field ask of a boot server, and the test that shows it.

use anyhow::Result;

use super::{Places, dhcp_addresses, dhcp_packets, dhcp_paths, durable, http, networks, pxe, tftp};

/// One requirement.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Its number in the checklist; 0: it is not on the list.
    pub number: u8,
    /// In short.
    pub requirement: &'static str,
    /// Where it is written.
    pub reference: &'static str,
    /// How it is met.
    pub shown: Shown,
}

/// How a requirement is met.
#[derive(Debug, Clone, Copy)]
pub enum Shown {
    /// This test passes.
    By(Test),
    /// It does not apply, for this reason.
    DoesNotApply(&'static str),
}

/// A test against the running appliance.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// What it does; a remark for the report.
    pub run: fn(&Places) -> Result<String>,
}

/// What a test has to say beside "it passed".
pub trait Remark {
    /// For the report.
    fn text(self) -> String;
}

impl Remark for () {
    fn text(self) -> String {
        String::new()
    }
}

impl Remark for String {
    fn text(self) -> String {
        self
    }
}

macro_rules! checklist {
    ($($number:literal $requirement:literal $reference:literal $module:ident :: $test:ident;)*) => {
        /// The lines that tests show.
        pub const TESTED: &[Line] = &[$(Line {
            number: $number,
            requirement: $requirement,
            reference: $reference,
            shown: Shown::By(Test { name: stringify!($test), run: |places| $module::$test(places).map(Remark::text) }),
        }),*];

        /// The names of all tests, and of the check of the written list.
        pub const NAMES: &[&str] = &[$(stringify!($test),)* WRITTEN_LIST];
    };
}

/// The check that `tests/CONFORMANCE.md` says what is tested.
pub const WRITTEN_LIST: &str = "conformance_list_is_up_to_date";

#[rustfmt::skip]
checklist! {
    1  "A binding is durable before its ACK leaves" "RFC 2131 §3.1" durable::line_01_a_lease_is_durable_before_its_ack;
    2  "Leases survive a restart" "RFC 2131 §1.6" dhcp_addresses::line_02_leases_survive_a_restart;
    3  "The magic cookie is there, or the packet is ignored" "RFC 2131 §3" dhcp_packets::line_03_a_bad_cookie_gets_silence;
    4  "Exactly one message type, and one that clients send" "RFC 2131 §3" dhcp_packets::line_04_exactly_one_valid_message_type;
    5  "Pads are legal, END is last, an option cut short drops the packet" "RFC 2131 §4.1" dhcp_packets::line_05_pads_pass_and_a_cut_option_does_not;
    6  "The 15 reserved flag bits are ignored" "RFC 2131 §2" dhcp_packets::line_06_reserved_flag_bits_mean_nothing;
    7  "xid, flags, giaddr and chaddr come back; hops and secs are 0" "RFC 2131 table 3" dhcp_packets::line_07_fields_of_the_request_come_back;
    8  "OFFER and ACK carry 54 and 51; the answer to INFORM no 51" "RFC 2131 table 3" dhcp_packets::line_08_offer_and_ack_name_server_and_lease;
    9  "Options 50, 55 and 57 are never sent" "RFC 2131 table 3" dhcp_packets::line_09_never_sends_what_only_clients_send;
    10 "Option 61 comes back if, and only if, it was sent" "RFC 6842 §3" dhcp_packets::line_10_the_client_id_comes_back_if_sent;
    11 "One machine, one address, though its client id changes" "RFC 2131 §4.2, and ours" dhcp_addresses::line_11_a_machine_keeps_its_address_though_its_client_id_changes;
    12 "Addresses in order: current, previous, requested, free" "RFC 2131 §4.3.1" dhcp_addresses::line_12_addresses_come_in_order;
    13 "A new address is looked for on its wire, unless switched off" "RFC 2131 §3.1" networks::line_13_an_address_in_use_is_not_offered;
    14 "An offer that was not selected is dropped" "RFC 2131 §4.3.2" dhcp_addresses::line_14_an_offer_not_taken_is_free_again;
    15 "INIT-REBOOT of an unknown client: silence" "RFC 2131 §4.3.2" dhcp_addresses::line_15_an_unknown_client_that_reboots_gets_silence;
    16 "A wrong network or somebody else's address: NAK" "RFC 2131 §4.3.2" dhcp_addresses::line_16_a_wrong_network_gets_a_nak;
    17 "A NAK is broadcast where there is no relay" "RFC 2131 §4.3.2" dhcp_paths::line_17_a_nak_is_broadcast;
    18 "A relayed NAK goes to the relay, with the broadcast flag" "RFC 2131 §4.3.2" dhcp_paths::line_18_a_relayed_nak_goes_to_the_relay;
    19 "A NAK carries no address, no lease, no configuration" "RFC 2131 table 3" dhcp_paths::line_19_a_nak_carries_nothing_else;
    20 "A renewal needs ciaddr alone, and is answered there" "RFC 2131 §4.3.2" dhcp_addresses::line_20_a_renewal_needs_its_own_address_alone;
    21 "Answers go to giaddr, ciaddr, everybody, or the client's card" "RFC 2131 §4.1" dhcp_paths::line_21_answers_go_where_they_are_heard;
    22 "A declined address is not offered again, and people are told" "RFC 2131 §4.3.3" dhcp_addresses::line_22_a_declined_address_is_nobodys;
    23 "RELEASE frees the address and keeps the record" "RFC 2131 §4.3.4" dhcp_addresses::line_23_a_released_address_comes_back_to_its_client;
    24 "INFORM: no address, no look at leases" "RFC 2131 §3.4, §4.3.5" dhcp_addresses::line_24_inform_gets_configuration_alone;
    25 "T1 before T2 before the lease's end" "RFC 2131 §4.4.5" dhcp_addresses::line_25_t1_before_t2_before_the_end;
    26 "Overload (52): file and sname are read behind the options" "RFC 2131 §4.1" dhcp_packets::line_26_overloaded_fields_are_read;
    27 "Parts of a split option are joined" "RFC 3396" dhcp_packets::line_27_split_options_are_joined;
    28 "No answer is larger than 57 and the MTU allow; 576 always fits" "RFC 2132 §9.10" dhcp_packets::line_28_answers_fit_their_receiver;
    29 "Answers have at least 300 bytes" "RFC 1542 §2.1" dhcp_packets::line_29_answers_have_300_bytes;
    30 "A NUL at the end of a text is accepted and not sent" "RFC 2132 §2" dhcp_packets::line_30_a_trailing_nul_changes_nothing;
    31 "Option 82 comes back whole, last, or not at all" "RFC 3046 §2.2" dhcp_packets::line_31_option_82_comes_back_whole_and_last;
    32 "Link selection (82.5) and server override (82.11)" "RFC 3527, RFC 5107" dhcp_paths::line_32_a_relay_names_the_link_and_the_server;
    33 "BOOTP clients: an endless lease, or refused" "RFC 1534, RFC 951" dhcp_paths::line_33_bootp_clients_are_refused_or_keep_their_address;
    35 "Option 150, where it is configured, is a list of addresses" "RFC 5859" dhcp_packets::line_35_option_150_is_a_list_of_addresses;
    36 "93, 94 and 97 come back; their absence is tolerated" "RFC 4578 §2.1 to §2.3" pxe::line_36_pxe_options_come_back;
    37 "93 is a list of even length; an odd one is ignored" "RFC 4578 §2.1" pxe::line_37_an_odd_architecture_list_is_ignored;
    38 "97 all zero, all ones or doubled is no identity" "field" pxe::line_38_an_empty_or_doubled_machine_id_is_no_identity;
    39 "Each architecture its loader; an unknown one none, and a note" "RFC 4578, IANA registry" pxe::line_39_each_architecture_gets_its_loader;
    40 "A proxy's offer: yiaddr 0, 60 PXEClient, 54, no 51" "PXE 2.1" pxe::line_40_a_proxy_offers_no_address;
    41 "A proxy answers PXEClient and HTTPClient alone" "PXE 2.1" pxe::line_41_a_proxy_answers_network_boots_alone;
    42 "Answers within a second" "field" pxe::line_42_answers_come_in_time;
    43 "43.6 bit 3 and the file: no discovery, no menu" "PXE 2.1" pxe::line_43_firmware_boots_the_file_without_discovery;
    44 "Port 4011 acknowledges with the file" "PXE 2.1" pxe::line_44_port_4011_names_the_file;
    45 "60 PXEClient never goes without 43" "edk2 #8149" pxe::line_45_the_class_never_goes_without_option_43;
    46 "Port 4011 ignores strangers and echoes 43.71" "PXE 2.1" pxe::line_46_port_4011_ignores_strangers;
    47 "HTTP boot: 60 HTTPClient and a URL in 67" "UEFI 2.10 §24.7" pxe::line_47_http_boot_gets_its_class_and_a_url;
    48 "URLs need no resolver" "UEFI 2.10 §24.7" pxe::line_48_urls_name_addresses;
    49 "file and siaddr are filled, and 66 and 67" "RFC 2132, field" pxe::line_49_field_and_option_both_name_the_file;
    50 "iPXE, by 77 or 175, gets the script, without a loop" "ipxe.org" pxe::line_50_ipxe_gets_the_script;
    51 "HEAD with the exact length, then GET; resume by Range and If-Match" "RFC 9110, UEFI 2.10" http::line_51_head_then_get_and_resume;
    52 "A boot program is application/efi" "UEFI 2.10 §24.7" http::line_52_uefi_knows_it_for_a_program;
    53 "Doubled slashes collapse" "field" http::line_53_slashes_collapse;
    54 "What shim asks for first is refused at once" "field" http::line_54_what_shim_asks_for_is_refused_at_once;
    56 "A new TID for each transfer; a foreign one gets ERROR 5" "RFC 1350 §4" tftp::line_56_every_transfer_has_its_own_identifier;
    57 "A repeated ACK never brings a block twice" "RFC 1123 §4.2.3.1" tftp::line_57_a_repeated_ack_brings_no_second_block;
    58 "The timeout follows the path" "RFC 1123 §4.2.3.2" tftp::line_58_the_timeout_follows_the_path;
    59 "A broadcast request is ignored" "RFC 1123 §4.2.3.5" tftp::line_59_a_broadcast_request_is_ignored;
    60 "Only asked options are acknowledged; names are case-blind" "RFC 2347" tftp::line_60_only_asked_options_are_acknowledged;
    61 "blksize 8 to 65464, not above the wish, within the MTU" "RFC 2348" tftp::line_61_blocks_fit_the_wish_and_the_path;
    62 "timeout 1 to 255 comes back; tsize is real" "RFC 2349" tftp::line_62_timeout_and_size_are_told;
    63 "windowsize not above the wish; resume behind the last ACK" "RFC 7440" tftp::line_63_windows_resume_behind_the_last_ack;
    64 "A size probe ends with ERROR 8 and frees its session" "field" tftp::line_64_a_size_probe_frees_its_session;
    65 "Block numbers wrap to 0; an exact multiple ends with an empty block" "RFC 1350 §6, field" tftp::line_65_block_numbers_wrap;
    66 "Modes are case-blind; a write gets ERROR 2" "RFC 1350" tftp::line_66_modes_are_case_blind_and_nobody_writes;
    67 "A lost last ACK is waited for, and not for ever" "RFC 1350 §6" tftp::line_67_a_lost_last_ack_is_waited_for;
    0  "No offer waits over 200 ms for a look at the wire" "address probing" networks::wire_an_offer_waits_a_moment_at_most;
    0  "Each interface gives addresses of its own wire, under its own name" "several interfaces" networks::wire_each_interface_speaks_for_itself;
    0  "Each subnet tells its own mask, router, resolvers, domain and lease" "several subnets" networks::wire_each_subnet_tells_its_own;
    0  "Subnets of a shared network lend each other their addresses" "shared networks" networks::wire_shared_networks_share_their_wire;
    0  "NTP servers, MTU and a domain search list for clients that ask" "RFC 2132, RFC 3397" networks::wire_time_search_list_and_mtu_for_those_who_ask;
    0  "We are the log server of clients that ask, unless the site names one" "RFC 2132 §3.9" networks::wire_log_server_for_those_who_ask;
    0  "Options by number: of the subnet, and over them of the machine" "RFC 2132" networks::wire_options_by_number_of_subnet_and_machine;
    0  "A reservation outside the range is its machine's alone" "reservations" networks::wire_a_reservation_may_lie_outside_the_range;
}

/// The lines that do not apply.
#[rustfmt::skip]
pub const UNTESTED: &[Line] = &[
    Line { number: 34, requirement: "DHCPv6 boot options only where asked for", reference: "RFC 5970 §3, §4",
           shown: Shown::DoesNotApply("there is no DHCPv6 server: machines boot over IPv4, and are told at once that no IPv6 router is there") },
    Line { number: 55, requirement: "Boot TLS offers 1.2; https where http is refused", reference: "iPXE, EDK2",
           shown: Shown::DoesNotApply("boot files are served over HTTP; there is no TLS on the provisioning network yet") },
];
